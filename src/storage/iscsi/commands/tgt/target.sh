# target VERB IQN [WORD]...: changes one of tgtd's targets. POSIX sh; constant text, all values are positional parameters.
# tgt-admin ends with status 0 when it skipped something, so what tgtd shows afterwards decides.
verb=$1 iqn=$2
shift 2
fail() { printf '%s\n' "$*" >&2; exit 1; }
adm() { tgtadm --lld iscsi "$@"; }
shown() { adm --op show --mode target | awk -v iqn="$iqn" '/^Target /{here = ($3 == iqn)} here'; }
number() { adm --op show --mode target | awk -v iqn="$iqn" '/^Target / && $3 == iqn {sub(":", "", $2); print $2}'; }
has() { shown | grep -qxE "[[:blank:]]+$1"; }
literal() { shown | grep -qxF -- "$1"; }
case $verb in
offer)
    said=$(tgt-admin --update "$iqn" 2>&1) || fail "$said"
    for path in "$@"; do
        literal "            Backing store path: $path" || fail "target $iqn does not show $path: $said"
    done
    exit 0
    ;;
forget)
    user=$1 file=$2
    rm -f -- "$file"
    command -v tgtadm >/dev/null && adm --op show --mode target >/dev/null 2>&1 || exit 0
    tid=$(number)
    if [ -n "$tid" ]; then adm --op delete --mode target --tid "$tid" || exit 1; fi
    if [ -n "$user" ] && adm --op show --mode account | grep -qxF -- "    $user"; then
        adm --op delete --mode account --user "$user" || exit 1
    fi
    exit 0
    ;;
esac
tid=$(number)
# What is offered later takes its account and addresses from the file.
[ -n "$tid" ] || { [ "$verb" = bind-account ] && exit 0; fail "tgtd has no target $iqn"; }
case $verb in
bind-account)
    literal "        $1" || adm --op bind --mode account --tid "$tid" --user "$1"
    ;;
unbind-account) adm --op unbind --mode account --tid "$tid" --user "$1" ;;
bind-address) adm --op bind --mode target --tid "$tid" --initiator-address "$1" ;;
unbind-address) adm --op unbind --mode target --tid "$tid" --initiator-address "$1" ;;
add-lun)
    number=$1 path=$2 id=$3 serial=$4 product=$5
    set_() { adm --op update --mode logicalunit --tid "$tid" --lun "$number" --params "$1"; }
    adm --op new --mode logicalunit --tid "$tid" --lun "$number" --backing-store "$path" --bstype rdwr || exit 1
    # The caching mode page without WCE, as tgt-admin writes it for `write-cache off`.
    set_ mode_page=8:0:18:0x10:0:0xff:0xff:0:0:0xff:0xff:0xff:0xff:0x80:0x14:0:0:0:0:0:0 &&
        set_ "scsi_sn=$serial" && set_ "scsi_id=$id" && set_ vendor_id=STOR && set_ "product_id=$product" ||
        { adm --op delete --mode logicalunit --tid "$tid" --lun "$number"; exit 1; }
    ;;
*) fail "unknown verb $verb" ;;
esac
