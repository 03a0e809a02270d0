# sessions IQN [PATH]...: shows whether the kernel has an initiator, which sessions it has with a target, the disks behind
# them, and to which disks the paths lead. Reads sysfs only. POSIX sh; constant text, all values are positional parameters.
iqn=$1
shift
if [ -d /sys/module/iscsi_tcp ] || modinfo --field filename iscsi_tcp >/dev/null 2>&1; then echo transport; fi
for session in /sys/class/iscsi_session/session*; do
    { read -r target <"$session/targetname"; } 2>/dev/null && [ "$target" = "$iqn" ] || continue
    read -r state <"$session/state"
    for connection in /sys/class/iscsi_connection/connection"${session##*/session}":*; do
        { read -r address <"$connection/persistent_address" && read -r port <"$connection/persistent_port"; } 2>/dev/null || continue
        echo "session $address $port $state"
    done
    for disk in "$session"/device/target*/*/block/*; do
        [ -d "$disk" ] || continue
        lun=${disk%/block/*}
        read -r sectors <"$disk/size"
        serial=$(tail -c +5 "$disk/device/vpd_pg80" 2>/dev/null | tr -d ' \000\n')
        echo "lun ${lun##*:} ${disk##*/} $sectors ${serial:--}"
        for holder in "$disk"/holders/*; do
            [ -d "$holder" ] || continue
            kind=disk
            { read -r uuid <"$holder/dm/uuid"; } 2>/dev/null && kind=${uuid%%-*}
            read -r sectors <"$holder/size"
            echo "holder ${holder##*/} $kind $sectors"
        done
    done
done
for path in "$@"; do
    [ -b "$path" ] || continue
    disk=$(readlink -f -- "$path")
    echo "path ${disk##*/} $path"
done
