# What scenarios on installed hosts share: the package installed, a volume protected as README says.
# shellcheck shell=bash
packages=${FTDM_PACKAGES:-${CARGO_TARGET_DIR:-$LAB_REPOSITORY/target}/packages}
cp "$packages"/ftdm_*.deb "$SHARE/ftdm.deb"

status() { on "$1" ftship status vm1 --json 2>/dev/null | jq -r "$2"; }
is_state() { [[ $(status "$1" .state) == "$2" ]]; }
is_role() { [[ $(status "$1" .role) == "$2" ]]; }
property() { on "$1" udevadm info --query=property --property="$3" --value "$2"; }
main_pid() { on "$1" systemctl show --property=MainPID --value "$2"; }

apt_install() { on "$1" apt-get install -q -y "$2" > "apt.$1" 2>&1 || { cat "apt.$1"; fail "installing on $1"; }; }

# in_sync: and so says the service manager.
in_sync() {
    eventually 180 is_state "$1" "in sync"
    eventually 30 on "$1" bash -c 'systemctl show --property=StatusText ftship@vm1 | grep -q "in sync"'
}

# checked HOST: the file in the guest's file system is the one that was written.
checked() {
    on "$1" bash -c 'mount /dev/ftdm/vm1 /mnt && cd /mnt && sha256sum --quiet -c sum; code=$?; cd /; umount /mnt; exit $code'
}

# installed: the package is on both hosts.
installed() {
    step "install"
    for host in primary backup; do apt_install $host /share/ftdm.deb; done
}

# protected [EPOCH]: `vm1` is, from nothing to in sync.
protected() {
    step "protect a volume"
    local there mine theirs
    on primary lvcreate -q -y -n vm1 -L 64M vg
    there=$(on primary ftship init vm1 --volume /dev/vg/vm1 --address 10.9.0.1 --peer 10.9.0.2 --create-lvs ${1:+--epoch "$1"} |
        sed -n 's/^on the other host: //p')
    # shellcheck disable=SC2086
    on backup $there > /dev/null
    mine=$(on primary ftship keygen vm1) theirs=$(on backup ftship keygen vm1)
    on primary ftship pair vm1 --fingerprint "$theirs"
    on backup ftship pair vm1 --fingerprint "$mine"
    for host in primary backup; do on $host systemctl enable --now ftdm.target ftship@vm1.service; done
    in_sync primary
}
