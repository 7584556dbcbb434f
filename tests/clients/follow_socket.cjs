// A receiver as anybody would write one with the stock library `ws`.
//
//     follow_socket.cjs ADDRESS TOKEN PROTOCOL COUNT
//
// Follows until it has so many events, prints each as one line of JSON, and leaves. With the
// protocol ryggrad.v1 it grants credit as it goes and acknowledges each event by itself.

const WebSocket = require("ws");

const [address, token, protocol, count] = process.argv.slice(2);
const socket = new WebSocket(address, [protocol], { headers: { Authorization: `Bearer ${token}` } });
const wanted = Number(count);
let got = 0;
let last = 0;

function fail(why) {
  console.error(why);
  process.exit(1);
}

function told(event, cursor, number) {
  console.log(JSON.stringify({ event, cursor, number }));
  got += 1;
  last = number;
}

socket.on("open", () => {
  if (socket.protocol !== protocol) fail(`the bridge chose ${socket.protocol}`);
  if (protocol === "ryggrad.v1") socket.send(JSON.stringify({ type: "credit", events: 7 }));
});
socket.on("message", (data, binary) => {
  if (binary) fail("a binary message");
  const said = JSON.parse(data.toString());
  if (protocol === "cloudevents.json") {
    if (got < wanted) told(said, said.cursor, Number(said.deliverynumber));
    if (got === wanted) socket.close(1000);
    return;
  }
  if (said.type === "event" && got < wanted) {
    told(said.event, said.cursor, said.number);
    socket.send(JSON.stringify({ type: "ack", number: said.number }));
    socket.send(JSON.stringify({ type: "credit", events: 1 }));
  }
  if (said.type === "acknowledged" && got === wanted && said.through >= last) socket.close(1000);
});
socket.on("error", (error) => fail(String(error)));
socket.on("close", (code, reason) => {
  if (got < wanted) fail(`closed with ${code} ${reason} after ${got} events`);
});
setTimeout(() => fail(`only ${got} of ${wanted} events within a minute`), 60_000).unref();
