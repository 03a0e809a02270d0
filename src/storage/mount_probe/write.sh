# write DIRECTORY TYPE SOURCES PROBE NONCE SECONDS: writes the nonce into this host's probe file with O_DIRECT and fsync,
# and leaves a process behind that holds a lock on it for SECONDS at most.
dir=$1 type=$2 sources=$3 probe=$4 nonce=$5 seconds=$6
# F_OFD_SETLK, the lock that QEMU takes, where flock(1) has it (util-linux 2.40), else flock(2).
mode=--fcntl
flock --fcntl -V >/dev/null 2>&1 || mode=
enter "$dir" "$type" "$sources"
if ! why=$( (printf '%-4095s\n' "$nonce" | dd of="$probe" bs=4096 count=1 iflag=fullblock oflag=direct conv=excl,fsync status=none) 2>&1); then
    say write-failed "$why"
    exit 0
fi
echo "written $nonce"
echo "made-by $(stat -c %U -- "$probe")"
[ ! -L "$probe" ] && exec 9<>"$probe" || exit 0
if why=$(flock $mode -n -x 9 2>&1); then
    # The lock belongs to the open file, which the sleeping process inherits. It must not keep anything else open.
    setsid sleep "$seconds" </dev/null >/dev/null 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- &
    echo "locked $! ${mode#--}"
else
    say lock-failed "$why"
fi
