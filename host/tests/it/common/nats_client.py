"""A NATS client of another make: sends and reads for the tests, with nats-py, and prints:

    nats_client.py URL request   replies to the requests on standard input, one JSON object per line
    nats_client.py URL services  the services that answer and their endpoints, as `nats micro` finds them
    nats_client.py URL events N  the first N messages of the stream of events
"""

import asyncio
import json
import sys

import nats
from nats.js.api import ConsumerConfig, DeliverPolicy

# Longer than anything takes on a busy machine.
LIMIT = 30
STREAM = "kontor-events"


def show(message):
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
        show(reply)


async def services(client):
    for verb in ["PING", "INFO.kontor", "STATS.kontor"]:
        show(await client.request(f"$SRV.{verb}", timeout=LIMIT))


async def events(client, count):
    messages = await client.jetstream().subscribe(
        "kontor.events.>",
        stream=STREAM,
        ordered_consumer=True,
        config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL),
    )
    for _ in range(count):
        show(await messages.next_msg(timeout=LIMIT))


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
