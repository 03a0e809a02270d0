# forget CHAIN: takes a chain, and every jump to it, out of the rules of nftables.
command -v nft >/dev/null || exit 0
list=$(nft --handle list ruleset) || exit 1
printf '%s\n' "$list" | awk -v own="$1" '
	$1 == "table" { table = $2 " " $3 }
	$1 == "chain" { chain = $2 }
	$1 == "chain" && $2 == own { chains[++count] = table " " own }
	index($0 " ", "jump " own " ") && $(NF - 1) == "handle" { print "delete rule " table " " chain " handle " $NF }
	END { for (at = 1; at <= count; at++) { print "flush chain " chains[at]; print "delete chain " chains[at] } }
' | nft -f -
