# guard OWN CLUSTER BOOLEAN...: shows what guards this host. Silent and without another process where nothing does.
own=$1 cluster=$2
shift 2
mark() { printf '\n%%stor:%s\n' "$1"; }
if [ -r /sys/fs/selinux/enforce ]; then
	mark selinux
	for boolean; do getsebool "$boolean" 2>&1; done
fi
# Whether a firewall guards a host is not guessed: where that cannot be told, nothing is planned.
unknown() { mark unknown; printf '%s\n' "$1"; exit; }
state=inactive
if command -v firewall-cmd >/dev/null; then
	# A daemon between two states is waited for, until the query's deadline.
	while :; do
		state=$(systemctl is-active firewalld 2>&1)
		case $state in activating | deactivating | reloading | refreshing) sleep 0.2 ;; *) break ;; esac
	done
fi
found=
case $state in
inactive | failed | unknown) ;;
active)
	found=1
	mark firewalld
	mark runtime
	firewall-cmd --info-policy="$own" 2>&1
	known=$?
	mark permanent
	firewall-cmd --permanent --info-policy="$own" 2>&1
	# Only a policy that the daemon does not know makes a reload necessary, which undoes what was never saved. Each
	# call costs a fifth of a second.
	if [ "$known" -ne 0 ]; then
		mark version
		firewall-cmd --version
		mark zones
		firewall-cmd --list-all-zones
		mark permanent-zones
		firewall-cmd --permanent --list-all-zones
	fi
	;;
*) unknown "firewalld: $state" ;;
esac
if [ -r /etc/ufw/ufw.conf ] && command -v ufw >/dev/null; then
	state='Status: inactive'
	if grep -qi '^ENABLED=yes' /etc/ufw/ufw.conf; then state=$(ufw status 2>&1) || unknown "ufw: $state"; fi
	if printf '%s\n' "$state" | grep -q '^Status: active'; then
		[ "$found" ] || { found=1; mark ufw; }
		mark ufw-rules
		ufw show added
	elif grep -qs '"ufw"' "/var/lib/stor/$cluster.json"; then
		mark ufw-rules
		ufw show added
	fi
fi
if [ -z "$found" ] && command -v nft >/dev/null; then
	mark nftables
	nft --json --terse list ruleset 2>&1
	unit=stor-$cluster-firewall.service
	if [ -e "/var/lib/stor/$cluster.nft" ]; then
		mark rules
		cat "/var/lib/stor/$cluster.nft"
	fi
	if [ -e "/etc/systemd/system/$unit" ]; then
		mark unit
		cat "/etc/systemd/system/$unit"
		mark unit-state
		systemctl show --property=LoadState,ActiveState,UnitFileState,NeedDaemonReload -- "$unit"
	fi
fi
exit 0
