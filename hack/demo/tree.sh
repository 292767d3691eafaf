# shellcheck shell=bash
# A tree that is hard to keep, and its comparison by find, diff, cmp and getfattr alone. Sourced by demo.sh.

# The target of symbolic links that lead out of the tree: whoever follows one of them spoils this file, and nothing else.
outside=

# fill_tree DIR TREE copies a tree of programs into DIR/tree and puts every kind of oddity into DIR/odd.
fill_tree() {
	make_outside
	mkdir "$1/tree" "$1/odd"
	# Debian's GOROOT has symbolic links to its parts: they are followed, those below them are not.
	cp -a -H "$2"/* "$1/tree/"
	(cd "$1/odd" && make_links && make_modes && make_owners && make_attributes && make_names && make_others && make_times)
}

make_outside() {
	echo "nobody may touch this" >"$outside"
	chmod 0640 "$outside"
	describe_outside >"$outside.then"
}

describe_outside() {
	stat -c '%n %i %f %u:%g %s %Y %Z' "$outside"
	cat "$outside"
}

make_links() {
	mkdir -p links/deep/er
	echo "one file, three names" >links/first
	ln links/first links/second
	ln links/first links/deep/er/third
	ln -s first links/relative
	ln -s "$outside" links/absolute
	ln -s "$(realpath --relative-to=links "$outside")" links/out
	ln -s nowhere links/dangling
	ln -P links/dangling links/dangling-again
}

make_modes() {
	mkdir modes modes/sticky modes/setgid modes/closed
	echo "#!/bin/sh" | tee modes/setuid modes/setgid-file modes/none modes/all >/dev/null
	chmod 4755 modes/setuid
	chmod 2711 modes/setgid-file
	chmod 0000 modes/none
	chmod 0777 modes/all
	chmod 1777 modes/sticky
	chmod 2770 modes/setgid
	echo hidden >modes/closed/file
	chmod 0000 modes/closed
}

make_owners() {
	mkdir owners
	echo "of root" >owners/root
	echo "of 33333" >owners/user
	echo "of nobody we know" >owners/unknown
	echo "of the last one there is" >owners/last
	ln -s root owners/link
	chown 33333:33333 owners/user
	chown 123456:654321 owners/unknown
	chown 4294967294:4294967294 owners/last
	chown -h 1234:4321 owners/link
	chown 33333:100 owners
}

make_attributes() {
	mkdir attributes
	echo attributes | tee attributes/file attributes/acl attributes/capable >/dev/null
	setfattr -n user.demo -v "a value" attributes/file
	setfattr -n user.binary -v 0x000102ff00 attributes/file
	setfattr -n user.empty attributes/file
	setfattr -n user.demo -v "of a directory" attributes
	setfacl -m u:1234:rw,g:4321:r attributes/acl
	setfacl -d -m u:1234:rwx attributes
	PATH=$PATH:/sbin:/usr/sbin setcap cap_net_bind_service+ep attributes/capable
}

make_names() {
	mkdir names
	(
		cd names || exit
		touch -- 'with spaces' $'with\nnewline' $'with\ttab' $'not utf-8 \xff\xfe' '-rf' '*' "quote's\"" 'back\slash' 'ümläut'
		touch -- "$(printf 'x%.0s' {1..255})"
		mkdir -- $'dir \xc3\x28\n'
		echo inside >$'dir \xc3\x28\n/ '
	)
}

make_others() {
	mkdir others others/empty
	mkfifo others/pipe
	: >others/nothing
	# 64 MiB, of which two blocks hold anything.
	truncate -s 64M others/sparse
	printf 'middle' | dd of=others/sparse bs=1 seek=33554432 conv=notrunc status=none
	printf 'end' | dd of=others/sparse bs=1 seek=67108861 conv=notrunc status=none
}

# make_times comes last: what is made below a directory changes the directory's time.
make_times() {
	mkdir times times/directory
	echo times | tee times/nanosecond times/before-1970 times/future >/dev/null
	ln -s nanosecond times/link
	touch -d '2001-02-03 04:05:06.123456789 UTC' times/nanosecond
	touch -d '1965-04-03 02:01:00.999999999 UTC' times/before-1970
	touch -d '2035-12-31 23:59:59.000000001 UTC' times/future
	touch -h -d '2002-03-04 05:06:07.987654321 UTC' times/link
	touch -d '2003-04-05 06:07:08.000000042 UTC' times/directory
}

# list_tree DIR LISTS describes a tree in three files: LISTS.entries has type, mode, owner, time to the nanosecond, size,
# number of links and target of every path; LISTS.links has the groups of hard links; LISTS.attributes has the extended ones.
list_tree() {
	(
		cd "$1" || exit
		find . \( -type d -printf '%p d %04m %U:%G %T@\0' \) -o \
			-printf '%p %y %04m %U:%G %T@ %s bytes, %n links -> %l\0' | LC_ALL=C sort -z >"$2.entries"
		find . ! -type d -links +1 -printf '%i %p\0' | LC_ALL=C sort -z -k 2 | group_links >"$2.links"
		find . -print0 | LC_ALL=C sort -z | xargs -0 getfattr -h -d -m - -e hex -- >"$2.attributes"
	)
}

# group_links replaces the number of an inode, which a copy cannot keep, by the first name that it has.
group_links() {
	local inode path
	local -A first=()
	while IFS=' ' read -r -d '' inode path; do
		: "${first[$inode]:=$path}"
		printf '%s = %s\0' "$path" "${first[$inode]}"
	done
}

# keep_tree DIR COPY keeps a copy of a tree and its lists, to compare with later.
keep_tree() {
	rm -rf "$2" "$2".*
	cp -a "$1" "$2"
	list_tree "$1" "$2"
}

# compare_tree DIR COPY compares a tree with what keep_tree kept.
compare_tree() {
	local kind
	list_tree "$1" "$2.now"
	for kind in entries links attributes; do
		if ! cmp "$2.$kind" "$2.now.$kind"; then
			diff <(tr '\0' '\n' <"$2.$kind") <(tr '\0' '\n' <"$2.now.$kind") | head -n 20 || true
			fail "the $kind of $1 are not what they were"
		fi
	done
	# A named pipe cannot be compared by reading it; it is in the lists.
	diff -r --no-dereference -x pipe "$2" "$1" | head -n 20 || fail "the content of $1 is not what it was"
	describe_outside | cmp - "$outside.then" || fail "somebody followed a symbolic link out of the content"
	rm "$2".now.*
	say "equal by find, cmp, diff and getfattr: $(tr -cd '\0' <"$2.entries" | wc -c) entries," \
		"$(tr -cd '\0' <"$2.links" | wc -c) of them hard links, $(grep -ac '^[a-z].*=' "$2.attributes") extended attributes"
}
