# remove DIRECTORY TYPE SOURCES PROBE: removes this host's probe file, and what a killed run of this host left behind. One
# that is still locked belongs to another stor that is at work now.
mode=--fcntl
flock --fcntl -V >/dev/null 2>&1 || mode=
enter "$1" "$2" "$3"
for old in "${4%.*}".*; do
    [ "$old" != "$4" ] && [ -f "$old" ] && [ ! -L "$old" ] && flock $mode -n -s 3 2>/dev/null 3<"$old" && rm -f -- "$old"
done
if why=$(rm -f -- "$4" 2>&1); then echo removed; else say remove-failed "$why"; fi
