# attach IQN PORTALS PATH...: logs in at every portal (ADDRESS:PORT, parted by blanks) where the host is not, has the kernel
# look at sizes and LUNs anew, joins the ways to a LUN where there are several, and waits for the paths. May run again.
# POSIX sh; constant text, all values are positional parameters.
set -u
iqn=$1 portals=$2
shift 2
node() { iscsiadm --mode node --targetname "$iqn" "$@"; }
for portal in $portals; do
    said=$(node --portal "$portal,1" --login 2>&1)
    case $? in
    0 | 15) ;; # 15: there is a session already (ISCSI_ERR_SESS_EXISTS)
    *) echo "$said" >&2; exit 1 ;;
    esac
done
node --rescan >/dev/null || exit 1
udevadm settle --timeout=10
case $portals in
*' '*)
    for session in /sys/class/iscsi_session/session*; do
        [ "$(cat "$session/targetname" 2>/dev/null)" = "$iqn" ] || continue
        for disk in "$session"/device/target*/*/block/*; do
            [ -d "$disk" ] || continue
            multipath -a "/dev/${disk##*/}" >/dev/null && multipath "/dev/${disk##*/}" >/dev/null
        done
    done
    udevadm settle --timeout=10
    ;;
esac
for map in /sys/class/iscsi_session/session*/device/target*/*/block/*/holders/*/dm; do
    [ -d "$map" ] || continue
    disk=${map%/holders/*}
    session=${disk%/device/target*}
    [ "$(cat "$session/targetname")" = "$iqn" ] || continue
    case $(cat "$map/uuid") in
    mpath-*) [ "$(cat "$disk/size")" = "$(cat "$map/../size")" ] || multipathd resize map "$(cat "$map/name")" >/dev/null || exit 1 ;;
    esac
done
for path in "$@"; do
    left=100
    until [ -b "$path" ]; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || { echo "logged in, but $path did not come within 10s: the target does not show its LUN" >&2; exit 1; }
        sleep 0.1
    done
done
