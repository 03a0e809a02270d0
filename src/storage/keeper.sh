# keeper DIRECTORY [c:FILE | i:FILE | r:FILE | d:FILE]...: what the server that has the files itself sees of them. c: makes a
# probe file of one block of blanks, i: identifies a file, r: shows the start of a probe file, d: removes one. Files are
# named without directories. POSIX sh; constant text, all values are positional parameters.
cd -P -- "$1" 2>/dev/null || { echo "refused no directory $1"; exit 0; }
[ "$PWD" = "$1" ] || { echo "refused $1 leads to $PWD"; exit 0; }
shift
for word in "$@"; do
    file=${word#?:}
    case $word in
    # By its descriptor: once it has a name, a client may put a link there. `set -C` makes a new file or opens a device, also one that
    # a link leads to; so the descriptor is asked before anything is written.
    c:*) why=$( (set -C && [ ! -L "$file" ] && [ ! -e "$file" ] && exec 9>"$file" && [ -f /proc/self/fd/9 ] || { echo "$file: not a new file" && exit 1; }
        printf '%-4096s' '' >&9 && chown --reference=. -- /proc/self/fd/9) 2>&1) && why= ;;
    i:*) why=$(stat -c '%i %s' -- "$file" 2>&1) ;;
    r:*) if [ -L "$file" ]; then why="head: $file is a symbolic link"; else why=$(head -c 4096 -- "$file" 2>&1 | tr -d '\0' | head -c 200); fi ;;
    d:*) why=$(rm -f -- "$file" 2>&1) && why= ;;
    esac
    printf '%s %s %s\n' "${word%%:*}" "$file" "$(printf %s "$why" | tr '\n' ' ')"
done
