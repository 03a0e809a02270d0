# read DIRECTORY TYPE SOURCES USER GROUP PROBE XATTRS [i:IMAGE | p:PROBE | l:KIND:PROBE]...: looks at images, reads other hosts'
# probe files with O_DIRECT, tries the lock that another host holds. USER may be empty (unknown). Writes only to PROBE.
dir=$1 type=$2 sources=$3 user=$4 group=$5 probe=$6 xattrs=$7
shift 7
as() {
    case $user in
    root | 0) "$@" ;;
    *[!0-9]*) setpriv --reuid="$user" --regid="$group" --init-groups -- "$@" ;;
    *) setpriv --reuid="$user" --regid="$group" --clear-groups -- "$@" ;;
    esac
}
# What a guest's QEMU would do, by the path that it would use: open, read a block, open for writing. Writes nothing:
# neither created nor truncated, and count=0 copies nothing.
access() {
    if why=$(as dd if="$PWD/$1" of=/dev/null bs=4096 count=1 iflag=direct,nofollow status=none 2>&1); then
        echo "read yes"
    else
        say "read no" "$why"
    fi
    if why=$(as dd if=/dev/null of="$PWD/$1" bs=4096 count=0 oflag=nofollow conv=notrunc,nocreat status=none 2>&1); then
        echo "write yes"
    else
        say "write no" "$why"
    fi
}
image() {
    echo "image $1"
    if why=$(stat -c '%i %s %U %G %a' -- "$1" 2>&1); then echo "stat $why"; else
        say "stat-failed" "$why"
        return
    fi
    if [ -n "$xattrs" ] && command -v getfattr >/dev/null; then
        for name in $xattrs; do
            if why=$(getfattr --only-values -n "$name" -- "$1" 2>/dev/null | tr -d '\0'); then echo "xattr $name $why"; fi
        done
    fi
    [ -z "$user" ] || access "$1"
}
# A client may know a file's size or absence from before it was written (FUSE keeps attributes for a second), and the
# kernel reads nothing beyond the size that it knows: so an empty answer is asked again, for 1.5 s at most in all.
left=15
nonce() {
    while :; do
        why=$(dd if="$1" bs=4096 count=1 iflag=direct,nofollow status=none 2>&1 | tr -d '\0' | head -c 200)
        case $why in '' | dd:*) [ $left -gt 0 ] || break ;; *) break ;; esac
        left=$((left - 1))
        sleep 0.1
    done
    echo "probe $1"
    say nonce "$why"
}
enter "$dir" "$type" "$sources"
for word in "$@"; do
    case $word in
    i:*) image "${word#?:}" ;;
    p:*) nonce "${word#?:}" ;;
    l:*)
        word=${word#?:}
        echo "lock $(trylock "${word%%:*}" "${word#*:}")"
        ;;
    esac
done
# stor's own probe file stands for a new image: libvirt gives an image to QEMU's user before a guest starts
# (dynamic_ownership), so the file is given likewise, and then written to by that user. Another host may have put a link in
# its place: none is followed.
if [ -n "$user" ] && [ -f "$probe" ] && [ ! -L "$probe" ]; then
    echo "own $probe"
    if why=$(chown -h -- "$user:$group" "$probe" 2>&1); then echo "chown yes"; else say "chown no" "$why"; fi
    if why=$(printf '%-4096s' access | as dd of="$PWD/$probe" bs=4096 seek=1 count=1 iflag=fullblock oflag=direct,nofollow conv=notrunc,nocreat,fsync status=none 2>&1); then
        echo "write yes"
    else
        say "write no" "$why"
    fi
fi
