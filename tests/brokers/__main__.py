"""Starts a Kafka broker for a person: python -m tests.brokers [--nodes 3] [--port 9092]."""

import argparse
import signal
import sys
import time

from tests.brokers.cluster import Cluster
from tests.brokers.jars import BrokerUnavailable

__all__ = ("main",)

POLL_S = 0.1


def main(arguments: list[str] | None = None) -> int:
    """Run until Ctrl-C; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.brokers",
        description="Start Apache Kafka on this machine; what it holds is lost when it stops.",
    )
    parser.add_argument("--nodes", type=int, default=1, choices=(1, 3))
    parser.add_argument("--port", type=int, default=9092, help="of the first node (9092)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print("starting Kafka (the first time fetches it, some 50 MB)", flush=True)
        with Cluster(nodes=options.nodes, port=options.port) as cluster:
            _say(cluster)
            while len(cluster.pids) == options.nodes:
                time.sleep(POLL_S)
            dead = sorted(set(cluster.nodes) - set(cluster.pids))
            print(f"Kafka's node {dead[0]} ended by itself", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        print("\nstopped")
        return 0
    except BrokerUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        last = options.port + options.nodes - 1
        ports = f"port {last} is" if options.nodes == 1 else f"ports {options.port} to {last} are"
        print(
            f"{ports} not free ({error.strerror}): name another, "
            "python -m tests.brokers --port 9192, or make kafka PORT=9192",
            file=sys.stderr,
        )
        return 1


def _say(cluster: Cluster) -> None:
    url = f"kafka://{cluster.bootstrap}"
    print(f"Kafka runs: {url}\n")
    print("in another terminal:")
    print(f"  madlog demo --log {url}")
    print(f"  MADLOG_KAFKA={cluster.bootstrap} make test")
    print(f"  export MADLOG_LOG={url}")
    print("\nCtrl-C stops it; what it holds is lost then", flush=True)


if __name__ == "__main__":
    sys.exit(main())
