# The demonstration: one page fetched through a veth pair, a bridge and another veth pair, and traced on its way.
# Usage: demo.sh PATH_OF_SKBTRACE, as root.
skbtrace=$1
server=
clean() {
    trap - EXIT INT TERM
    [ -n "$server" ] && kill "$server"
    "$skbtrace" lab down
    rmdir "$page"
}
page=$(mktemp -d) || exit
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$skbtrace" lab up bridge || exit
# An empty folder: a short page.
ip netns exec ns-calm1 python3 -m http.server 8000 --bind 78.78.0.10 --directory "$page" > /dev/null 2>&1 &
server=$!
# Seen by its socket, not by a first request: that would be a packet on the path.
tries=0
until ip netns exec ns-calm1 ss -Hltn 'sport = 8000' | grep -q .; do
    tries=$((tries + 1))
    if [ "$tries" -gt 300 ] || ! kill -0 "$server"; then
        echo "the web server in ns-calm1 did not start" >&2
        exit 1
    fi
    sleep 0.1
done
"$skbtrace" run --iface calmveth1 --timeout 20 -- ip netns exec ns-calm2 curl -s http://78.78.0.10:8000/ -o /dev/null
