#!/bin/bash
# A link that is down loses frames silently and in both directions, and works again afterwards.
reach() { # reach FROM TO
    on "$1" python3 -c "
import socket
s = socket.create_connection(('$2', 700), timeout=2)
s.sendall(b'hello')
assert s.recv(5) == b'hello'"
}
for host in primary backup; do
    background $host python3 -c "
import socket
listener = socket.create_server(('', 700))
while True:
    c, _ = listener.accept()
    c.sendall(c.recv(5))"
done
eventually 20 reach primary backup 2>/dev/null
eventually 20 reach backup primary 2>/dev/null

step "down: no connection, and no sign of it at the interface"
link down
expect_fail reach primary backup 2>/dev/null
expect_fail reach backup primary 2>/dev/null
on primary bash -c 'ip link show vec0 | grep -q LOWER_UP'

step "up again"
link up
eventually 20 reach primary backup 2>/dev/null
eventually 20 reach backup primary 2>/dev/null

step "a host that was off gets nothing that was sent to it meanwhile"
power_off backup
on primary python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(2000): s.sendto(b'x' * 1000, ('backup', 701))"
power_on backup
reach backup primary
