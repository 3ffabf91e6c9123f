"""Runs every attack from the pod; arguments: where to write the rows, the gateway's MAC address.

Controls, which are allowed, go first and last: each server must have seen both, or the rows between
them prove nothing."""

import hello_rows
import http_rows
import raw
import table
import tcp_rows
import tls_rows
import udp_rows


def controls(rows, wire, when):
    http_rows.controls(rows, when)
    tcp_rows.controls(rows, wire, when)
    tls_rows.controls(rows, when)
    udp_rows.controls(rows, wire, when)
    hello_rows.controls(rows, when)
    rows.wait()


def main():
    out, gateway = table.arguments()
    rows = table.Table(out)
    wire = raw.Wire("eth0", bytes.fromhex(gateway.replace(":", "")))
    controls(rows, wire, "at first")
    http_rows.add(rows)
    tcp_rows.add(rows, wire)
    tls_rows.add(rows)
    udp_rows.add(rows, wire)
    hello_rows.attacks(rows)
    rows.wait()
    controls(rows, wire, "at last")


main()
