"""Runs every attack from the pod; arguments: where to write the rows, the gateway's MAC address."""

import http_rows
import raw
import table
import tcp_rows
import tls_rows
import udp_rows


def main():
    out, gateway = table.arguments()
    rows = table.Table(out)
    wire = raw.Wire("eth0", bytes.fromhex(gateway.replace(":", "")))
    http_rows.add(rows)
    tcp_rows.add(rows, wire)
    tls_rows.add(rows)
    udp_rows.add(rows, wire)
    rows.finish()


main()
