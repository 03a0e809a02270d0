# record IQN TIMEOUT USER PORTAL...: has open-iscsi know a target at its portals (ADDRESS:PORT), log in to it when the host
# boots, and wait TIMEOUT seconds for a lost session before I/O fails. The CHAP secret is the first line of standard input
# where USER is not empty: iscsiadm takes it as an argument only, which every user of the host could read, so it is written
# into the record itself. Other settings of a record stay. May run again. POSIX sh; constant text.
set -eu
umask 077
iqn=$1 timeout=$2 user=$3
shift 3
secret=
[ -z "$user" ] || IFS= read -r secret || [ -n "$secret" ] || { echo 'no secret on standard input' >&2; exit 1; }
settings() {
    echo "node.startup = automatic"
    echo "node.conn[0].startup = automatic"
    echo "node.session.timeo.replacement_timeout = $timeout"
    if [ -n "$user" ]; then
        echo "node.session.auth.authmethod = CHAP"
        echo "node.session.auth.username = $user"
        printf 'node.session.auth.password = %s\n' "$secret"
    else
        echo "node.session.auth.authmethod = None"
    fi
}
rewritten() {
    while IFS= read -r line; do
        case $line in
        'node.startup ='* | 'node.conn[0].startup ='* | 'node.session.timeo.replacement_timeout ='*) ;;
        'node.session.auth.authmethod ='* | 'node.session.auth.username ='* | 'node.session.auth.password ='*) ;;
        '# END RECORD'*) settings && echo "$line" ;;
        *) printf '%s\n' "$line" ;;
        esac
    done
}
for portal in "$@"; do
    node() { iscsiadm --mode node --targetname "$iqn" --portal "$portal,1" "$@"; }
    node >/dev/null 2>&1 || node --op new >/dev/null
    found=
    for file in /etc/iscsi/nodes/"$iqn"/"${portal%:*},${portal##*:},1"/default /var/lib/iscsi/nodes/"$iqn"/"${portal%:*},${portal##*:},1"/default; do
        [ -f "$file" ] || continue
        found=$file partial=${file%/nodes/*}/.stor-node-partial
        rewritten <"$file" >"$partial"
        sync "$partial"
        mv -f -- "$partial" "$file"
    done
    [ -n "$found" ] || { echo "open-iscsi keeps its record of $iqn elsewhere than stor knows" >&2; exit 1; }
    node >/dev/null
done
