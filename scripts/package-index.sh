#!/usr/bin/env bash
# Prints Debian's package index as TSV that `ringcask load --format tsv` reads: the key is
# package/version/architecture, the value the whole stanza.
#
# It reads the Packages files that `apt-get update` leaves, in whatever compression. A package that is
# in several of them is printed several times; as in a load, the last one counts.
set -euo pipefail

lists=${APT_LISTS:-/var/lib/apt/lists}

shopt -s nullglob
files=("$lists"/*_Packages "$lists"/*_Packages.*)
if ((${#files[@]} == 0)); then
    echo "package-index: no Packages file in $lists; run apt-get update first" >&2
    exit 1
fi

for file in "${files[@]}"; do
    /usr/lib/apt/apt-helper cat-file "$file"
    echo # Ends a last stanza, should the file not do so itself.
done | LC_ALL=C awk '
    # A backslash is doubled by "&&" and not by "\\\\\\\\", which every awk reads in its own way.
    function escaped(text) {
        gsub(/\\/, "&&", text)
        gsub(/\t/, "\\t", text)
        gsub(/\r/, "\\r", text)
        return text
    }
    function print_stanza() {
        if (package != "")
            print escaped(package "/" version "/" architecture) "\t" stanza
        package = version = architecture = stanza = ""
    }
    /^$/ { print_stanza(); next }
    /^Package: / { package = substr($0, 10) }
    /^Version: / { version = substr($0, 10) }
    /^Architecture: / { architecture = substr($0, 15) }
    { stanza = stanza escaped($0) "\\n" }
    END { print_stanza() }
'
