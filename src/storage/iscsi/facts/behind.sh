# stor-behind: shows what is behind the LUNs of all targets of a host: who offers it, which file or device that is, its path.
# Never writes. POSIX sh; constant text.
same() {
    if [ -b "$1" ]; then
        printf 'b:%d:%d' "0x$(stat -L --format=%t -- "$1")" "0x$(stat -L --format=%T -- "$1")"
    else
        stat -L --format='f:%d:%i' -- "$1" 2>/dev/null || echo -
    fi
}
for shows in /sys/kernel/config/target/core/*/*/udev_path; do
    [ -r "$shows" ] || continue
    path=$(cat "$shows")
    [ -n "$path" ] || continue
    object=${shows%/udev_path}
    printf 'lio %s %s %s\n' "${object##*/}" "$(same "$path")" "$path"
done
command -v tgtadm > /dev/null || exit 0
tgtadm --lld iscsi --op show --mode target 2>/dev/null | awk '
    /^Target /{target = $3}
    /^ +Backing store path: \//{sub(/^ +Backing store path: /, ""); print target " " $0}' |
    while read -r target path; do printf 'tgt %s %s %s\n' "$target" "$(same "$path")" "$path"; done
