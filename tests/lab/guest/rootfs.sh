#!/bin/bash
# Makes the disk from which hosts with `root=debian` boot: a Debian with systemd and udevd, as an ext4 image.
#
# usage: tests/lab/rootfs IMAGE     (root; needs mmdebstrap and e2fsprogs; about a minute and 1 GB for the time)
#
# The release is the machine's own, because that is what the packages are built for. What must hold: IMAGE is either
# absent or complete, also when this was interrupted.
set -euo pipefail

image=$1
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
size=1536M

# What any host with LVM has, and what the scenarios look at things with.
packages=systemd-sysv,udev,dbus,lvm2,dmsetup,kmod,iproute2,e2fsprogs,thin-provisioning-tools,procps,jq,libdevmapper1.02.1,man-db

work=$(mktemp -d "$image.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
chmod 0755 "$work"
mmdebstrap --quiet --variant=minbase --mode=root --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/ftdm/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --aptopt='APT::Sandbox::User "root"' \
    "$suite" "$work/root"
cd "$work/root"

# The agent is how the lab gives commands; lab/bin is its folder, share the scenario's.
mkdir -p lab/bin share usr/lib/modules
cat > etc/systemd/system/lab-agent.service <<'UNIT'
[Unit]
Description=The lab's agent
After=multi-user.target
DefaultDependencies=no
[Service]
Type=exec
ExecStart=/lab/bin/lab-agent /run/lab-agent
Environment=HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
StandardInput=null
KillMode=process
OOMScoreAdjust=-1000
[Install]
WantedBy=multi-user.target
UNIT
ln -s ../lab-agent.service etc/systemd/system/multi-user.target.wants/ 2>/dev/null || {
    mkdir -p etc/systemd/system/multi-user.target.wants
    ln -s ../lab-agent.service etc/systemd/system/multi-user.target.wants/lab-agent.service
}
# Nothing listens on the consoles; what is slow and shows nothing here stays away.
for unit in getty@tty1.service getty.target serial-getty@ttyS0.service man-db.timer apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    systemd-networkd.service systemd-resolved.service; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
echo 'LABEL=lab-root / ext4 defaults 0 0' > etc/fstab
: > etc/machine-id
rm -rf var/cache/apt/*.bin
cat > usr/sbin/policy-rc.d <<'POLICY'
#!/bin/sh
exit 0
POLICY
rm -f usr/sbin/policy-rc.d

cd "$work"
mke2fs -q -t ext4 -L lab-root -d root image "$size"
mv image "$image"
