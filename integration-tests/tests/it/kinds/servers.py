"""Servers of other people, for checks to measure: SMTP with STARTTLS, gRPC health, HTTP/3, DNS over QUIC, RDAP, a
WebSocket and a datagram socket that echo.

Usage: servers.py CERTIFICATE KEY. Prints one line of JSON, name to port, when all of them listen on loopback; ends with its
standard input.
"""

import asyncio
import json
import ssl
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import websockets
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated, StreamDataReceived
from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


class Echo(asyncio.DatagramProtocol):
    """Answers each datagram with itself."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        self.transport.sendto(b"you said " + data, peer)


class NameServer(QuicConnectionProtocol):
    """Answers each query with the address 192.0.2.1, behind its length."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.said = {}

    def quic_event_received(self, event):
        if not isinstance(event, StreamDataReceived):
            return
        said = self.said[event.stream_id] = self.said.get(event.stream_id, b"") + event.data
        if event.end_stream:
            query = said[2:]
            question = query[12 : query.index(0, 12) + 5]
            header = query[:2] + bytes([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0])
            record = bytes([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1])
            answer = header + question + record
            self._quic.send_stream_data(event.stream_id, len(answer).to_bytes(2) + answer, end_stream=True)
            self.transmit()


async def serve_doq(certificate, key):
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["doq"])
    configuration.load_cert_chain(certificate, key)
    return await serve("127.0.0.1", 0, configuration=configuration, create_protocol=NameServer)


class Web(QuicConnectionProtocol):
    """Answers each request over HTTP/3 with its method and path."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.asked = {}

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        for heard in self.http.handle_event(event) if self.http else []:
            if isinstance(heard, HeadersReceived):
                self.asked[heard.stream_id] = dict(heard.headers)
            if isinstance(heard, (HeadersReceived, DataReceived)) and heard.stream_ended:
                self.answer(heard.stream_id, self.asked[heard.stream_id])

    def answer(self, stream, asked):
        status = b"404" if asked[b":path"] == b"/absent" else b"200"
        self.http.send_headers(stream, [(b":status", status), (b"content-type", b"text/plain")])
        self.http.send_data(stream, b"you said %s %s" % (asked[b":method"], asked[b":path"]), end_stream=True)
        self.transmit()


async def serve_http3(certificate, key):
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(certificate, key)
    tickets = {}
    keep = lambda ticket: tickets.__setitem__(ticket.ticket, ticket)
    fetch = lambda label: tickets.pop(label, None)
    server = await serve(
        "127.0.0.1",
        0,
        configuration=configuration,
        create_protocol=Web,
        session_ticket_handler=keep,
        session_ticket_fetcher=fetch,
    )
    return server, server._transport.get_extra_info("sockname")[1]


class Registry(BaseHTTPRequestHandler):
    """Answers as RFC 9083 has it: what it knows, what it does not, and where it has moved from."""

    ENDS = {"good.example": "2999-08-13T04:00:00Z", "ended.example": "2020-08-13T04:00:00Z", "endless.example": None}

    def do_GET(self):
        if self.path.startswith("/old/"):
            return self.answer(301, {}, location=self.path.replace("/old/", "/rdap/", 1))
        base, _, name = self.path.rpartition("/")
        if base != "/rdap/domain" or name not in self.ENDS:
            return self.answer(404, {"errorCode": 404, "title": "Not Found", "description": ["No such domain."]})
        events = [{"eventAction": "registration", "eventDate": "1995-08-14T04:00:00Z"}]
        if self.ENDS[name]:
            events.append({"eventAction": "expiration", "eventDate": self.ENDS[name]})
        events.append({"eventAction": "last update of RDAP database", "eventDate": "2026-01-01T00:00:00Z"})
        registrar = {"objectClassName": "entity", "handle": "1", "roles": ["registrar"], "vcardArray": ["vcard", []]}
        answer = {
            "objectClassName": "domain",
            "handle": "2336799_DOMAIN_COM-VRSN",
            "ldhName": name.upper(),
            "links": [{"value": "https://a", "rel": "self", "href": "https://a", "type": "application/rdap+json"}],
            "status": ["client delete prohibited", "client transfer prohibited"],
            "entities": [registrar],
            "events": events,
            "secureDNS": {"delegationSigned": False},
            "nameservers": [{"objectClassName": "nameserver", "ldhName": "NS1.EXAMPLE"}],
        }
        self.answer(200, answer)

    def answer(self, status, answer, **headers):
        body = json.dumps({"rdapConformance": ["rdap_level_0"], "notices": [], **answer}).encode()
        self.send_response(status)
        for header, value in {"content-type": "application/rdap+json", "content-length": len(body), **headers}.items():
            self.send_header(header, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def serve_rdap(context):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


async def serve_smtp(context):
    mail = lambda: SMTP(Sink(), hostname="mail.example", ident="a mail server", tls_context=context)
    return await asyncio.get_running_loop().create_server(mail, "127.0.0.1", 0)


def serve_grpc(certificate, key):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    servicer.set("shop.v1.Cart", health_pb2.HealthCheckResponse.SERVING)
    servicer.set("shop.v1.Broken", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    plain = server.add_insecure_port("127.0.0.1:0")
    with open(certificate, "rb") as chain, open(key, "rb") as secret:
        credentials = grpc.ssl_server_credentials([(secret.read(), chain.read())])
    secure = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, plain, secure


async def main():
    certificate, key = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server, grpc_plain, grpc_tls = serve_grpc(certificate, key)

    async def echo(connection):
        async for message in connection:
            await connection.send(f"you said {message}")

    plain = await websockets.serve(echo, "127.0.0.1", 0)
    secure = await websockets.serve(echo, "127.0.0.1", 0, ssl=context)
    mail = await serve_smtp(context)
    names = await serve_doq(certificate, key)
    datagrams, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    web, http3 = await serve_http3(certificate, key)
    port = lambda served: next(iter(served.sockets)).getsockname()[1]
    ports = {
        "smtp": port(mail),
        "udp": datagrams.get_extra_info("sockname")[1],
        "doq": names._transport.get_extra_info("sockname")[1],
        "grpc": grpc_plain,
        "grpc_tls": grpc_tls,
        "ws": port(plain),
        "wss": port(secure),
        "http3": http3,
        "rdap": serve_rdap(context),
    }
    print(json.dumps(ports), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.stop(None)
    web.close()


asyncio.run(main())
