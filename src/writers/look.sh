# Prints what a file or device is, whatever leads to it: `sh -c THIS stor-writers PATH`. Read-only.
path=$1
said=$(LC_ALL=C stat -L -c 'stat %d %i %t %T' -- "$path" 2>&1) || {
    case $said in
    *'No such file or directory'* | *'Not a directory'*)
        echo absent
        exit 0
        ;;
    esac
    printf '%s\n' "$said" >&2
    exit 1
}
real=$(readlink -f -- "$path") || exit 1
printf 'real %s\n%s\n' "$real" "$said"
[ -b "$real" ] || exit 0
names=$(lsblk --list --noheadings --inverse --output KNAME -- "$real") || exit 1
for name in $names; do
    sys=/sys/class/block/$name
    printf 'node %s\n' "$(cat "$sys/dev")"
    lsblk --pairs --nodeps --noheadings --output TYPE,WWN,SERIAL -- "/dev/$name"
    [ ! -r "$sys/dm/uuid" ] || printf 'dm %s\n' "$(cat "$sys/dm/uuid")"
    [ ! -r "$sys/partition" ] || printf 'partition %s\n' "$(cat "$sys/partition")"
    if [ -r "$sys/loop/backing_file" ]; then
        file=$(cat "$sys/loop/backing_file")
        printf 'loop %s\n' "$file"
        LC_ALL=C stat -L -c 'behind %d %i' -- "$file" 2>/dev/null
    fi
    device=$(readlink -f "$sys/device")
    case $device in
    */session[0-9]*)
        session=${device##*/session}
        session=/sys/class/iscsi_session/session${session%%/*}
        printf 'iscsi %s %s\n' "$(cat "$session/targetname")" "${device##*:}"
        ;;
    esac
done
exit 0
