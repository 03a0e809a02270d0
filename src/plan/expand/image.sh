# stor-make-image DIRECTORY NAME FORMAT SIZE LENGTH: makes an image under a name that is free, empty (LENGTH is `-`) or from the LENGTH bytes of
# standard input. POSIX sh with coreutils and qemu-img; constant text, all values are positional parameters.
#
# Other hosts write to DIRECTORY as well, and root there may put a link in place of any name at any time. So no name is followed: the
# file is made under a name that nobody can foresee and that must be new (`set -C`: O_CREAT|O_EXCL), everything is done through its
# descriptor, and it gets its own name by a hard link of that descriptor, which fails when the name is taken by anything. `cd -P` pins the
# directory: names without a slash are looked up in it, whatever its path leads to by then.
fail() {
    echo "$1" >&2
    exit 1
}
dir=$1 name=$2 format=$3 size=$4 length=$5
cd -P -- "$dir" || exit 1
if [ -L "$name" ]; then fail "$dir/$name: File exists, a symbolic link"; fi
if [ -e "$name" ]; then fail "$dir/$name: File exists"; fi
# What a run left that was killed: this one holds the lock of the cluster, so nobody is at work on it. rm(1) follows no link.
for old in ".$name.stor-"*.partial; do
    if [ ! -L "$old" ] && [ -f "$old" ]; then rm -f -- "$old"; fi
done
random=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
[ "${#random}" -eq 16 ] || fail "no random name could be made"
temp=.$name.stor-$random.partial
trap 'rm -f -- "$temp"' EXIT
trap 'exit 1' HUP INT TERM PIPE
umask 077
set -C
exec 9>"$temp" || exit 1
set +C
file=/proc/self/fd/9
made=$(stat -L --format='%d:%i' -- "$file") || exit 1
if [ "$length" = - ]; then
    case $format in
    raw) truncate --size="$size" -- "$file" || exit 1 ;;
    *) qemu-img create -q -f "$format" "$file" "$size" || exit 1 ;;
    esac
else
    # Holes for zeroes; a file that ends with one gets its length from dd as well. The length is compared because a connection that
    # breaks ends standard input like a whole file does.
    dd bs=1M iflag=fullblock conv=sparse status=none >&9 || exit 1
    [ "$(stat -L --format=%s -- "$file")" = "$length" ] || fail "the copy has not the length of its source"
    qemu-img resize -q -f "$format" "$file" "$size" || exit 1
fi
# Whoever may write to the directory is who QEMU runs as; nobody else has to read a guest's disk.
chown --reference=. -- "$file" && chmod 0600 -- "$file" && sync -- "$file" || exit 1
[ "$(stat --format='%d:%i %h %F' -- "$temp")" = "$made 1 regular file" ] || fail "$dir/$temp was replaced while the image was made: somebody interferes"
ln -L -T -- "$file" "$name" || exit 1
rm -f -- "$temp" && sync -- . || exit 1
[ "$(stat --format=%d:%i -- "$name")" = "$made" ] || fail "$dir/$name was replaced once the image was made: somebody interferes"
