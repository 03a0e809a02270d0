# Prints what stor may change on a host, but for packages and what they bring (their units are in /usr/lib).
find /etc/systemd/system -type f 2>/dev/null
find /etc/systemd/system -type l ! -lname '/usr/lib/systemd/*' ! -lname '/lib/systemd/*' ! -lname /dev/null 2>/dev/null
find /etc/exports.d /etc/nfs.conf.d /etc/ganesha /etc/libvirt/storage /etc/libvirt/qemu /etc/libvirt/libxl /etc/libvirt/secrets /etc/tgt/conf.d \
  /etc/iscsi/nodes /etc/iscsi/send_targets /var/lib/iscsi /var/lib/stor /root/.ssh /var/lib/glusterd/vols \
  /var/lib/glusterd/peers -type f,l 2>/dev/null | grep -vE 'nfs.conf.d/local.conf|ganesha/(ganesha|vfs|ganesha-ha).conf' | sort
echo "$(wc -l < /root/.ssh/authorized_keys) keys let in"
ls /var/lib/libvirt/images
grep -E ' (nfs4?|fuse.glusterfs) ' /proc/self/mounts
cat /var/lib/nfs/etab 2>/dev/null
find /sys/kernel/config/target/iscsi -maxdepth 1 -name 'iqn*' 2>/dev/null
find /sys/kernel/config/target/core -mindepth 2 -maxdepth 2 -type d -path '*_[0-9]*' 2>/dev/null
ls /etc/rtslib-fb-target/pr 2>/dev/null
grep -ho 'iqn[^"]*' /etc/rtslib-fb-target/saveconfig.json 2>/dev/null
find /sys/class/iscsi_session -mindepth 1 2>/dev/null
virsh -q secret-list 2>/dev/null
losetup --list --noheadings --output BACK-FILE
grep -hv "^#" /etc/multipath/wwids /etc/multipath/bindings 2>/dev/null
nft list ruleset
true
