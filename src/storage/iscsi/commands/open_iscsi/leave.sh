# leave IQN WWIDS [PORTAL]...: logs out of a target at these portals (ADDRESS:PORT) and has open-iscsi forget them, and multipath the
# LUNs (parted by blanks). Unless another way to the LUNs stays, it fails, and changes nothing, while a disk is mounted or held by
# something else than multipath.
# May run again. POSIX sh; constant text, all values are positional parameters.
set -u
iqn=$1 wwids=$2
shift 2
maps= stays=
sessions() { for session in /sys/class/iscsi_session/session*; do [ "$(cat "$session/targetname" 2>/dev/null)" = "$iqn" ] && echo "$session"; done; }
for session in $(sessions); do
    for connection in /sys/class/iscsi_connection/connection"${session##*/session}":*; do
        portal=$(cat "$connection/persistent_address"):$(cat "$connection/persistent_port")
        case " $* " in
        *" $portal "*) ;;
        *) stays=yes ;;
        esac
    done
done
[ -n "$stays" ] || for session in $(sessions); do
    for disk in "$session"/device/target*/*/block/*; do
        [ -d "$disk" ] || continue
        name=${disk##*/}
        ! grep -q "^/dev/$name[0-9]* " /proc/self/mounts || { echo "/dev/$name is mounted" >&2; exit 1; }
        for holder in "$disk"/holders/*; do
            [ -d "$holder" ] || continue
            case $(cat "$holder/dm/uuid" 2>/dev/null) in
            mpath-*) maps="$maps $(cat "$holder/dm/name")" ;;
            *) echo "/dev/$name is in use by ${holder##*/}" >&2; exit 1 ;;
            esac
        done
    done
done
command -v iscsiadm >/dev/null || exit 0
for map in $(printf '%s\n' $maps | sort -u); do
    multipath -f "$map" || exit 1
done
# 21: there is no such session, or no such record (ISCSI_ERR_NO_OBJS_FOUND)
quietly() {
    said=$(iscsiadm --mode node --targetname "$iqn" --portal "$portal,1" "$@" 2>&1)
    case $? in
    0 | 21) ;;
    *) echo "$said" >&2; exit 1 ;;
    esac
}
for portal in "$@"; do
    quietly --logout
    quietly --op delete
done
# attach told multipath to join them.
[ -n "$stays" ] || ! command -v multipath >/dev/null || for wwid in $wwids; do
    multipath -w "$wwid" >/dev/null || exit 1
done
