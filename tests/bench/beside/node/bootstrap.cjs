// The loop around the handler, in place of AWS's: takes an event from the Runtime API, hands it over, posts the answer, one at a time.
//
// It speaks HTTP over one kept connection by hand, because `node:http` costs about as much for two requests as the rest of such a loop and
// more: what is measured is to be the handler. It therefore wants a Runtime API that keeps the connection and names the length of what it
// answers.

"use strict";

const net = require("node:net");
const path = require("node:path");

const [host, port = "80"] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
const ROOT = "/2018-06-01/runtime/invocation";
const END_OF_HEAD = Buffer.from("\r\n\r\n");
const NOTHING = Buffer.alloc(0);

const socket = net.connect({ host, port: Number(port), noDelay: true });
let received = NOTHING;
let waiting;

socket.on("data", (bytes) => {
  received = received.length === 0 ? bytes : Buffer.concat([received, bytes]);
  deliver();
});
// Lambda ends a process whose Runtime API has gone; here nobody else does.
socket.on("close", () => process.exit(0));
socket.on("error", (error) => {
  console.error(`the Runtime API can't be reached: ${error.message}`);
  process.exit(1);
});

/** Hands over the response that is being waited for, once it is there as a whole. */
function deliver() {
  const end = received.indexOf(END_OF_HEAD);
  if (end < 0 || !waiting) {
    return;
  }
  const head = received.latin1Slice(0, end);
  const length = header(head, "content-length");
  if (length === undefined) {
    throw new Error(`a response of the Runtime API without its length: ${head}`);
  }
  const start = end + END_OF_HEAD.length;
  const next = start + Number(length);
  if (received.length < next) {
    return;
  }
  const response = { head, body: received.utf8Slice(start, next) };
  received = received.length === next ? NOTHING : received.subarray(next);
  const resolve = waiting;
  waiting = undefined;
  resolve(response);
}

function header(head, name) {
  return new RegExp(`\\r\\n${name}: *([^\\r]*)`, "i").exec(head)?.[1];
}

function request(method, resource, body) {
  const length = body === undefined ? "" : `content-length: ${Buffer.byteLength(body)}\r\n`;
  socket.write(`${method} ${ROOT}${resource} HTTP/1.1\r\nhost: ${host}:${port}\r\n${length}\r\n${body ?? ""}`);
  return new Promise((resolve) => {
    waiting = resolve;
    deliver();
  });
}

async function run() {
  const { handler, ready } = require(path.join(__dirname, "dist", "handler.cjs"));
  await ready;
  for (;;) {
    const { head, body } = await request("GET", "/next");
    const id = header(head, "lambda-runtime-aws-request-id");
    let answer;
    try {
      answer = ["response", JSON.stringify(await handler(JSON.parse(body), { awsRequestId: id }))];
    } catch (error) {
      answer = ["error", JSON.stringify({ errorType: error.name, errorMessage: error.message })];
    }
    await request("POST", `/${id}/${answer[0]}`, answer[1]);
  }
}

run();
