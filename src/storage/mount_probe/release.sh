# release DIRECTORY TYPE SOURCES PROBE PID [KIND:PROBE]...: ends the process that holds the lock on this host's probe file, then
# tries the locks of other hosts until they are free, 3 s at most in all.
dir=$1 type=$2 sources=$3 probe=$4 pid=$5
shift 5
enter "$dir" "$type" "$sources"
# The number may have passed to another process meanwhile: only the one that has the probe file open is ended.
if [ "$pid" != 0 ] && [ "$(readlink "/proc/$pid/fd/9")" = "$PWD/$probe" ]; then kill "$pid"; fi
left=30
for other in "$@"; do
    until said=$(trylock "${other%%:*}" "${other#*:}") || [ $left = 0 ]; do
        left=$((left - 1))
        sleep 0.1
    done
    echo "lock $said"
done
