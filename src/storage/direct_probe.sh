# direct USER GROUP WRITE-URL NONCE [s:URL | r:URL]... [k:HOST:PORT]...: uses one of QEMU's own clients (GlusterFS, NFS), as the user that QEMU runs as.
# WRITE-URL may be empty. s: opens an image for reading and writing and shows its size, r: reads the start of a probe
# file; k: knocks at a port, if something could not be opened before. After one silence nothing else is tried: it would cost
# another 3 s each. POSIX sh (bash knocks); constant text, all values are positional parameters.
user=$1 group=$2 target=$3 nonce=$4
shift 4
silent= failed=
as() {
    case $user in
    '' | root | 0) "$@" ;;
    *[!0-9]*) setpriv --reuid="$user" --regid="$group" --init-groups -- "$@" ;;
    *) setpriv --reuid="$user" --regid="$group" --clear-groups -- "$@" ;;
    esac
}
# qemu-io ends by a signal of its own: closing a volume takes libgfapi 10 s, also after a failure. So its status says
# nothing; what it printed does.
io() { [ -n "$silent" ] || as timeout -s KILL 3 qemu-io "$@" 2>&1; }
report() {
    echo "$1"
    said=$(printf '%s\n' "$2" | grep -vE "^\[[0-9-]+ |warning: 'gluster' is deprecated|^Killed$")
    case $said in
    '') silent=yes failed=yes && return ;;
    *"can't open"*) failed=yes ;;
    esac
    printf '%s\n' "$said" | sed 's/^/| /'
}
knock() {
    timeout 1 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "${1%:*}" "${1##*:}" 2>/dev/null
    case $? in
    0) echo "k $1 open" ;;
    124) echo "k $1 silent" ;;
    1) echo "k $1 refused" ;;
    esac
}
command -v qemu-io >/dev/null || { echo "missing qemu-io"; exit 0; }
if [ -n "$target" ]; then
    block=$(mktemp) && chmod 0644 "$block" && printf '%-4095s\n' "$nonce" >"$block"
    out=$(io -f raw -c "write -s $block 0 4096" -c flush -c 'sigraise 9' "$target")
    report "write $target" "$out"
    rm -f -- "$block"
fi
for word in "$@"; do
    case $word in
    k:*)
        [ -z "$failed" ] || knock "${word#k:}" &
        continue
        ;;
    s:*) out=$(io -f raw -c length -c 'sigraise 9' "${word#s:}") ;;
    r:*) out=$(io -r -f raw -c 'read -v 0 192' -c 'sigraise 9' "${word#r:}") ;;
    esac
    report "${word%%:*} ${word#?:}" "$out"
done
wait
