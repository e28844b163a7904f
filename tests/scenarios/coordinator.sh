#!/usr/bin/env bash
# Where a coordinator commits, epochs stay staged until its word; the backup, whose power is cut, still has them; a
# promote wants the coordinator's epoch, refuses others with the range, and ends at exactly that one.
VOLUME_MB=32
EPOCH=10s
POLICY='commit = "external"'
. "$(dirname "${BASH_SOURCE[0]}")/pair.bash"
protect

# One marked epoch: writes $1 times 64 KiB, ends the epoch, prints its number; the volume's digest is in DIGEST.
mark() {
    on primary dd if=/dev/urandom of=/dev/mapper/vm1 bs=64k count="$1" oflag=direct conv=notrunc status=none
    DIGEST=$(digest primary /dev/mapper/vm1)
    EPOCH_MARKED=$(on primary ftship checkpoint vm1 --wait=staged)
}

mark 2
committed=$EPOCH_MARKED
expect_code 4 on primary ftship commit vm1 --epoch 1000000
expect_code 4 on backup ftship commit vm1 --epoch "$committed"
expect_equal "$(on primary ftship commit vm1 --epoch "$committed")" "$committed" "what commit prints"
mark 3
chosen=$EPOCH_MARKED digest_chosen=$DIGEST
mark 4
later=$EPOCH_MARKED
expect_equal "$(status primary .epochs.committed)" "$committed" "what is committed without a word"
expect_equal "$(status backup .epochs.committed)" "$committed" "the same on the backup"

power_off primary
power_off backup
boot backup
start_backup
eventually 20 on backup test -S /run/ftdm/vm1.sock
expect_code 4 on backup ftship promote vm1
expect_code 4 on backup ftship promote vm1 --epoch $((committed - 1))
expect_code 4 on backup ftship promote vm1 --epoch $((later + 100))
expect_equal "$(on backup ftship promote vm1 --epoch "$chosen")" "$chosen" "the epoch promoted to"
expect_equal "$(digest backup /dev/vg/vm1)" "$digest_chosen" "the promoted volume"
expect_code 4 on backup ftship promote vm1 --epoch "$later"
