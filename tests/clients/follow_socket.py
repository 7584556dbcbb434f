"""A receiver as anybody would write one with the stock library `websockets`.

    follow_socket.py ADDRESS TOKEN PROTOCOL COUNT

Follows until it has so many events, prints each as one line of JSON, and leaves. With the
protocol ryggrad.v1 it grants ten events at a time and acknowledges every fifth for all before it.
"""

import asyncio
import json
import sys

from websockets.asyncio.client import connect


async def follow(address, token, protocol, count):
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(address, subprotocols=[protocol], additional_headers=headers, open_timeout=20) as socket:
        assert socket.subprotocol == protocol, socket.subprotocol
        got = 0
        if protocol == "ryggrad.v1":
            hello = json.loads(await socket.recv())
            assert hello["type"] == "hello", hello
            await socket.send(json.dumps({"type": "credit", "events": 10}))
        while got < count:
            said = json.loads(await asyncio.wait_for(socket.recv(), 60))
            if protocol == "cloudevents.json":
                print(json.dumps({"event": said, "cursor": said["cursor"], "number": int(said["deliverynumber"])}))
                got += 1
                continue
            if said["type"] != "event":
                continue
            print(json.dumps({"event": said["event"], "cursor": said["cursor"], "number": said["number"]}))
            got += 1
            if got % 10 == 0:
                await socket.send(json.dumps({"type": "credit", "events": 10}))
            if got % 5 == 0 or got == count:
                await socket.send(json.dumps({"type": "ack", "through": said["number"]}))
                last = said["number"]
        while protocol == "ryggrad.v1":
            said = json.loads(await asyncio.wait_for(socket.recv(), 60))
            if said["type"] == "acknowledged" and said["through"] >= last:
                break


asyncio.run(follow(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
