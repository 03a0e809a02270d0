# release DIRECTORY TYPE SOURCES PROBE PID [PROBE]...: ends the process that holds the lock on this host's probe file, then
# tries the locks of other hosts until they are free, 3 s at most in all.
dir=$1 type=$2 sources=$3 probe=$4 pid=$5
shift 5
enter "$dir" "$type" "$sources"
# The number may have passed to another process meanwhile: only the one that has the probe file open is ended.
if [ "$pid" != 0 ] && [ "$(readlink "/proc/$pid/fd/9")" = "$PWD/$probe" ]; then kill "$pid"; fi
left=30
for other in "$@"; do
    while :; do
        if command -v qemu-io >/dev/null; then
            tool=qemu-io
            why=$(qemu-io -r -f raw -c quit "$other" 2>&1)
        else
            tool=flock
            mode=--fcntl
            flock --fcntl -V >/dev/null 2>&1 || mode=
            why=$(flock $mode -n -s -E 75 "$other" true 2>&1)
        fi
        status=$?
        [ $status != 0 ] && [ $left -gt 0 ] || break
        left=$((left - 1))
        sleep 0.1
    done
    say "lock $other $tool $status" "$why"
done
