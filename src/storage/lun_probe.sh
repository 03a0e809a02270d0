# luns ADDRESS PORT IQN INITIATOR USER END [FILE NUMBER]...: looks at LUNs with QEMU's own iSCSI client: opens each for
# reading and writing, and shows its size and the digests of its first and last END bytes (none if END is 0). Never writes. The CHAP secret is
# the first line of standard input where USER is not empty. POSIX sh; constant text, all values are positional parameters.
address=$1 port=$2 iqn=$3 initiator=$4 user=$5 end=$6
shift 6
secret=
[ -z "$user" ] || IFS= read -r secret || [ -n "$secret" ] || exit 3
for program in qemu-io qemu-img sha256sum; do
    command -v "$program" >/dev/null || { echo "missing $program"; exit 0; }
done
work=$(mktemp -d) || exit 1
trap 'rm -rf -- "$work"' EXIT
place() {
    echo "$1driver=iscsi,$1transport=tcp,$1portal=$address:$port,$1target=$iqn,$1lun=$2,$1initiator-name=$initiator${user:+,$1user=$user,$1password-secret=s}"
}
# printf is the shell's own: the secret is in no process's arguments.
with() {
    program=$1
    shift
    if [ -n "$user" ]; then
        printf '%s' "$secret" | timeout -s KILL 4 "$program" "$@" 2>&1
    else
        timeout -s KILL 4 "$program" "$@" 2>&1 </dev/null
    fi
}
object() { [ -z "$user" ] || echo '--object secret,id=s,file=/dev/stdin'; }
said() { tr '\n' ' ' <"$1" | cut -c 1-400; echo; }
part() {
    with qemu-img convert $(object) --image-opts -O raw "driver=raw,offset=$2,size=$3,$(place file. "$1")" "$work/part" >"$work/said" || return 1
    sha256sum <"$work/part" | cut -d ' ' -f 1
    rm -f -- "$work/part"
}
while [ $# -ge 2 ]; do
    file=$1 number=$2
    shift 2
    echo "lun $file"
    with qemu-io $(object) --image-opts -c length "$(place '' "$number")" >"$work/said"
    case $? in
    0) ;;
    137) echo "error QEMU's client was not done with it within 4s" && continue ;; # killed: whatever it has said until then is no reason
    *) echo "error $(said "$work/said")" && continue ;;
    esac
    size=$(with qemu-img info $(object) --image-opts --output=json "$(place '' "$number")" | sed -n 's/.*"virtual-size": \([0-9]*\).*/\1/p')
    [ -n "$size" ] || { echo "error QEMU's client shows no size"; continue; }
    echo "size $size"
    [ "$end" -gt 0 ] || continue
    [ "$size" -ge "$end" ] || end=$size
    first=$(part "$number" 0 "$end") && last=$(part "$number" $((size - end)) "$end") && echo "digest $first $last" ||
        echo "unread $(said "$work/said")"
done
