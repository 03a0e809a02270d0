# devices IQN END [FILE DEVICE]...: looks at the LUNs of a target to which the host's own kernel is logged in: its sessions, and
# of each LUN the serial number, the size, and the digests of its first and last END bytes past the host's cache. Opens each
# for writing, and never writes. POSIX sh; constant text, all values are positional parameters.
iqn=$1 end=$2
shift 2
for session in /sys/class/iscsi_session/session*; do
    [ "$(cat "$session/targetname" 2>/dev/null)" = "$iqn" ] || continue
    for connection in /sys/class/iscsi_connection/connection"${session##*/session}":*; do
        [ -d "$connection" ] || continue
        echo "session $(cat "$connection/persistent_address"):$(cat "$connection/persistent_port") $(cat "$session/state")"
    done
done
said() { tr '\n' ' ' | cut -c 1-400; }
part() { timeout -s KILL 4 dd if="$device" bs=64K iflag=direct,skip_bytes,count_bytes skip="$1" count="$2" status=none | sha256sum | cut -d ' ' -f 1; }
# A disk of the target's, or what multipath made of its disks.
of_target() {
    for disk in "/sys/class/block/$1" /sys/class/block/"$1"/slaves/*; do
        place=$(readlink -f -- "$disk/device" 2>/dev/null) || continue
        case $place in
        */session[0-9]*) ;;
        *) continue ;;
        esac
        number=${place##*/session} number=${number%%/*}
        [ "$(cat "/sys/class/iscsi_session/session$number/targetname" 2>/dev/null)" = "$iqn" ] || continue
        serial=$(tail -c +5 "$disk/device/vpd_pg80" 2>/dev/null | tr -d ' \000\n')
        return 0
    done
    return 1
}
while [ $# -ge 2 ]; do
    file=$1 device=$2
    shift 2
    echo "lun $file"
    [ -b "$device" ] || { echo "error $device: No such file or directory"; continue; }
    name=$(readlink -f -- "$device") name=${name##*/} serial=
    of_target "$name" || { echo "error $device leads to $name, which is no LUN of the target"; continue; }
    [ -z "$serial" ] || echo "serial $serial"
    why=$(timeout -s KILL 4 dd if=/dev/null of="$device" oflag=direct conv=nocreat,notrunc status=none 2>&1) || { echo "error $(echo "${why:-$device does not answer within 4s}" | said)"; continue; }
    size=$(blockdev --getsize64 "$device")
    echo "size $size"
    [ "$size" -ge "$end" ] || end=$size
    first=$(part 0 "$end") last=$(part $((size - end)) "$end")
    empty=$(printf '' | sha256sum | cut -d ' ' -f 1)
    if [ "$first" = "$empty" ] || [ "$last" = "$empty" ]; then echo "unread $device gives nothing within 4s"; else echo "digest $first $last"; fi
done
