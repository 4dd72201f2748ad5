"""A client of NATS that is not ours: what the tests want sent and read, with nats-py.

    nats_client.py URL request   reads requests, a JSON object a line, from standard input and prints the replies
    nats_client.py URL services  prints what `nats micro` would find: who answers, and what they serve
    nats_client.py URL events N  prints the first N messages of the stream of events
"""

import asyncio
import json
import sys

import nats
from nats.js.api import ConsumerConfig, DeliverPolicy

# Longer than anything takes on a busy machine.
LIMIT = 30
STREAM = "kontor-events"


def tell(message):
    print(
        json.dumps(
            {
                "subject": message.subject,
                "headers": dict(message.headers or {}),
                "body": json.loads(message.data),
            }
        )
    )


async def request(client):
    for line in sys.stdin:
        wanted = json.loads(line)
        reply = await client.request(
            wanted["subject"],
            json.dumps(wanted["body"]).encode(),
            timeout=LIMIT,
            headers=wanted["headers"],
        )
        tell(reply)


async def services(client):
    for verb in ["PING", "INFO.kontor", "STATS.kontor"]:
        tell(await client.request(f"$SRV.{verb}", timeout=LIMIT))


async def events(client, count):
    messages = await client.jetstream().subscribe(
        "kontor.events.>",
        stream=STREAM,
        ordered_consumer=True,
        config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL),
    )
    for _ in range(count):
        tell(await messages.next_msg(timeout=LIMIT))


async def main():
    url, wanted, *more = sys.argv[1:]
    client = await nats.connect(url)
    if wanted == "request":
        await request(client)
    elif wanted == "services":
        await services(client)
    else:
        await events(client, int(more[0]))
    await client.close()


asyncio.run(main())
