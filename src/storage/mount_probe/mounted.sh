# mounted DIRECTORY TYPE SOURCES: fails unless the directory is the root of a mount of this type from one of these sources.
here=$(findmnt -rn -M "$1" -o FSTYPE,FSROOT,SOURCE | tail -n 1)
for source in $3; do
    [ "$here" != "$2 / $source" ] || exit 0
done
echo "$1 is not the storage: ${here:-nothing} is mounted there" >&2
exit 1
