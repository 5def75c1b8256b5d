"""Why no broker of a cluster lets us in, in words that say what to set.

aiokafka tells its own log only, so the first connection is made once more and looked at.
"""

import asyncio
import socket
import ssl

from aiokafka import errors as kafka_errors
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from madlog.topics.kafka_address import KafkaAddress

__all__ = ("refusal",)

_CLOSED = "closes the connection: see that security_protocol is what this port speaks"


async def refusal(address: KafkaAddress, timeout_s: float) -> str:
    """Return why the first server of an address does not serve us."""
    host, _, port = address.bootstrap[0].rpartition(":")
    arguments = address.client_arguments()
    del arguments["bootstrap_servers"]
    try:
        async with asyncio.timeout(timeout_s):
            connection = await create_conn(host.strip("[]"), int(port), **arguments)
            try:
                await connection.send(MetadataRequest([]))
            finally:
                connection.close()
    except (KafkaError, OSError, TimeoutError) as error:
        return f"{host}:{port} {_words(error, arguments['sasl_mechanism'])}"
    return f"{host}:{port} answers, but names no broker that does"


def _words(error: BaseException, mechanism: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return f"shows a certificate that we do not trust ({why}): see ssl_cafile and the host"
    if isinstance(error, kafka_errors.SaslAuthenticationFailed):
        return "refuses the user or the password"
    if isinstance(error, kafka_errors.UnsupportedSaslMechanismError):
        return f"does not take sasl_mechanism {mechanism}"
    if isinstance(error, kafka_errors.IllegalSaslStateError):
        return "asks for no user: see security_protocol"
    if isinstance(error.__cause__, ssl.SSLError) and "CERT" in (error.__cause__.reason or ""):
        return "asks for a client certificate that it trusts: see ssl_certfile and ssl_keyfile"
    if isinstance(error, ConnectionRefusedError):
        return "refuses the connection: see that a broker runs there"
    if isinstance(error, socket.gaierror):
        return "is not the name of a host"
    if isinstance(error, TimeoutError):
        return "does not answer"
    if isinstance(error, (kafka_errors.KafkaConnectionError, ConnectionError, ssl.SSLError)):
        return _CLOSED
    return f"cannot be reached ({error})"
