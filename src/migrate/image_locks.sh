# stor-lock FILE: asks for the lock that a guest's QEMU will ask for when it opens the image. Constant text, the file comes as a
# positional parameter. POSIX sh. Reads nothing of the file and writes nothing: the lock is a shared one of QEMU's byte 100 ("I
# rely on consistent reads"), which every guest grants, and it ends with the process. Any answer shows that the locks are
# answered; where none comes, the deadline ends this.
command -v qemu-io >/dev/null || exit 127
# A pipe would keep it waiting, and some devices do something when they are opened.
[ -f "$1" ] || { echo "$1: no regular file" >&2 && exit 1; }
why=$(qemu-io -r -f raw -c quit "$1" 2>&1) && exit 0
case $why in
*"Permission denied"*)
    # A server that takes root's rights away lets the owner in, who is QEMU's user while the guest runs.
    owner=$(stat -L -c %u -- "$1") && group=$(stat -L -c %g -- "$1") || exit 1
    why=$(setpriv --reuid="$owner" --regid="$group" --clear-groups -- qemu-io -r -f raw -c quit "$1" 2>&1) && exit 0
    ;;
esac
printf '%s\n' "$why" >&2
exit 1
