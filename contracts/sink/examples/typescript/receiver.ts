// A receiver for Landfall's HTTP sink in TypeScript, with Node's built-in modules only (Node 20 or later). The store is a journal file.
//
//     npm install && npm run build
//     LANDFALL_SINK_SECRET=whsec_… node build/receiver.js --port 8080 --journal landfall.journal
//
// Node 22.18 and later also run `node receiver.ts` as it is. Put a proxy that ends TLS before it. To make it yours, replace `refusal` and
// `Store`: this one keeps the key and content hash of every record in memory, which a database does better.

import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { closeSync, constants, createReadStream, existsSync, fstatSync, fsyncSync, mkdirSync, openSync, rmSync, writeSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

// The contract's largest body is some 3.2 MB.
const BODY_BYTES = 4 * 1024 * 1024;
const TOLERANCE_SECONDS = 300;
// Landfall settles every transfer within 11 days; what comes again does so before that.
const REMEMBERED_MILLISECONDS = 14 * 86_400_000;

interface Entry {
  key: string;
  content_hash: string;
  // JSON.parse makes doubles of numbers. Where records hold numbers of more than 15 digits, use a parser that keeps them.
  record: unknown;
}

interface Batch {
  version: number;
  tenant: string;
  chain: string;
  label: string;
  records: Entry[];
}

/** What the header landfall-piece says of a raw file's piece. */
interface Piece {
  version: number;
  file: string;
  tenant: string;
  chain: string;
  label: string;
  offset: number;
  length: number;
  last: boolean;
  file_hash?: string;
}

interface Result {
  key: string;
  outcome: "applied" | "unchanged" | "held" | "rejected";
  reason?: string;
}

/** A batch as it stands in the journal: the answer, and what was applied. */
interface Taken {
  identity: string;
  takenAt: number;
  results: Result[];
  applied: { place: string; contentHash: string; record: unknown }[];
}

/** A request that is not taken at all. */
class Refused extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** One secret; or two with a space between them, while the old one is being replaced. */
function readSecrets(text: string): Buffer[] {
  const secrets = text
    .split(" ")
    .filter((secret) => secret.startsWith("whsec_"))
    .map((secret) => Buffer.from(secret.slice("whsec_".length), "base64"));
  if (secrets.length === 0 || secrets.some((secret) => secret.length < 24)) {
    throw new Error("LANDFALL_SINK_SECRET must hold the secret that Landfall signs with: whsec_ and base64. Set it to the parameter SinkSecret.");
  }
  return secrets;
}

/** The webhook-id of a well signed request. */
function checkSignature(secrets: Buffer[], request: IncomingMessage, body: Buffer): string {
  const header = (name: string): string => {
    const value = request.headers[name];
    return typeof value === "string" ? value : "";
  };
  const identity = header("webhook-id");
  const timestamp = header("webhook-timestamp");
  const given = header("webhook-signature")
    .split(" ")
    .filter((part) => part.startsWith("v1,"))
    .map((part) => Buffer.from(part));
  if (identity === "" || given.length === 0 || !/^\d{1,12}$/.test(timestamp)) {
    throw new Refused(401, "A webhook header is missing or malformed.");
  }
  let right = false;
  for (const secret of secrets) {
    const code = createHmac("sha256", secret).update(`${identity}.${timestamp}.`).update(body).digest("base64");
    const expected = Buffer.from(`v1,${code}`);
    for (const signature of given) {
      // The comparison's time must not tell how much of a guess is right. It takes equal lengths only; the length is no secret.
      right = (signature.length === expected.length && timingSafeEqual(signature, expected)) || right;
    }
  }
  if (!right) {
    throw new Refused(401, "The signature is wrong.");
  }
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_SECONDS) {
    throw new Refused(401, "The timestamp is more than five minutes off.");
  }
  return identity;
}

/** What a piece is. The signature covers the header through the webhook-id, which is its digest. */
function readPiece(identity: string, request: IncomingMessage): Piece {
  const described = request.headers["landfall-piece"];
  if (typeof described !== "string" || createHash("sha256").update(described).digest("hex") !== identity) {
    throw new Refused(401, "The header landfall-piece is not the one that was signed.");
  }
  const piece = JSON.parse(described) as Piece;
  if (piece.version !== 1 || !/^[0-9a-f]{64}$/.test(piece.file)) {
    throw new Refused(400, "This receiver knows version 1 of a piece only.");
  }
  return piece;
}

/** Why a record is rejected; your own rules belong here. The reason is shown to people: no personal data in it. */
function refusal(record: unknown): string | undefined {
  const isObject = typeof record === "object" && record !== null && !Array.isArray(record);
  return isObject ? undefined : "a record must be an object";
}

/**
 * What was received. Each batch is one line of the journal, synchronised to the disk before it is answered: its records and its answer are
 * there together or not at all. Node runs `take` to its end before it looks at another request, so two deliveries never mix. Run one process
 * for each journal. A raw file is a file of its own below `<journal>.files`; the journal says, by tenant, chain and label, which ones count.
 */
class Store {
  private readonly journal: number;
  private readonly files: string;
  private readonly answers = new Map<string, { takenAt: number; results: Result[] }>();
  private readonly hashes = new Map<string, string>();

  private constructor(path: string) {
    this.journal = openSync(path, "a");
    this.files = `${path}.files`;
    mkdirSync(this.files, { recursive: true });
  }

  static async open(path: string): Promise<Store> {
    const store = new Store(path);
    if (existsSync(path)) {
      const lines = createInterface({ input: createReadStream(path), crlfDelay: Infinity });
      for await (const line of lines) {
        store.recall(line);
      }
    }
    return store;
  }

  take(identity: string, batch: Batch): Result[] {
    this.forget();
    const known = this.answers.get(identity);
    if (known) {
      return known.results;
    }
    const taken: Taken = { identity, takenAt: Date.now(), results: [], applied: [] };
    for (const { key, content_hash: contentHash, record } of batch.records) {
      const place = JSON.stringify([batch.tenant, batch.chain, batch.label, key]);
      const reason = refusal(record);
      if (reason !== undefined) {
        taken.results.push({ key, outcome: "rejected", reason });
      } else if (this.hashes.get(place) === contentHash) {
        taken.results.push({ key, outcome: "unchanged" });
      } else {
        taken.results.push({ key, outcome: "applied" });
        taken.applied.push({ place, contentHash, record });
      }
    }
    this.write(taken);
    this.remember(taken);
    return taken.results;
  }

  takePiece(identity: string, piece: Piece, content: Buffer): Result[] {
    this.forget();
    const known = this.answers.get(identity);
    if (known) {
      return known.results;
    }
    const length = this.keep(piece, content);
    const taken: Taken = { identity, takenAt: Date.now(), results: [], applied: [] };
    const place = JSON.stringify([piece.tenant, piece.chain, piece.label]);
    if (!piece.last) {
      taken.results.push({ key: piece.file, outcome: "applied" });
    } else if (length !== piece.offset + piece.length) {
      taken.results.push({ key: piece.file, outcome: "rejected", reason: "pieces of the file are missing" });
    } else if (this.hashes.get(place) === piece.file_hash) {
      taken.results.push({ key: piece.file, outcome: "unchanged" });
      rmSync(`${this.files}/${piece.file}`);
    } else {
      taken.results.push({ key: piece.file, outcome: "applied" });
      taken.applied.push({ place, contentHash: piece.file_hash ?? "", record: piece.file });
    }
    this.write(taken);
    this.remember(taken);
    return taken.results;
  }

  /** Writes a piece at its place, to the disk, and returns the file's length. */
  private keep(piece: Piece, content: Buffer): number {
    const file = openSync(`${this.files}/${piece.file}`, constants.O_RDWR | constants.O_CREAT);
    try {
      for (let written = 0; written < content.length; ) {
        written += writeSync(file, content, written, content.length - written, piece.offset + written);
      }
      fsyncSync(file);
      return fstatSync(file).size;
    } finally {
      closeSync(file);
    }
  }

  close(): void {
    closeSync(this.journal);
  }

  private write(taken: Taken): void {
    // The line break comes first: so a line that a crash or a full disk tore doesn't spoil the next one.
    const line = Buffer.from(`\n${JSON.stringify(taken)}`);
    for (let written = 0; written < line.length; ) {
      written += writeSync(this.journal, line, written);
    }
    fsyncSync(this.journal);
  }

  private recall(line: string): void {
    if (line === "") {
      return;
    }
    let taken: Taken;
    try {
      taken = JSON.parse(line) as Taken;
    } catch {
      console.error("A torn line of the journal was passed over. Its batch was never answered, and comes again.");
      return;
    }
    this.remember(taken);
  }

  private remember({ identity, takenAt, results, applied }: Taken): void {
    this.answers.set(identity, { takenAt, results });
    for (const { place, contentHash } of applied) {
      this.hashes.set(place, contentHash);
    }
  }

  /** A Map keeps the order of insertion, so the oldest answers come first. */
  private forget(): void {
    for (const [identity, { takenAt }] of this.answers) {
      if (Date.now() - takenAt < REMEMBERED_MILLISECONDS) {
        return;
      }
      this.answers.delete(identity);
    }
  }
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    // The rest is read too, and dropped: otherwise the client could not read the answer.
    if (length <= BODY_BYTES) {
      chunks.push(chunk);
    }
  }
  if (length > BODY_BYTES) {
    throw new Refused(413, `The body is larger than ${BODY_BYTES} bytes.`);
  }
  return Buffer.concat(chunks);
}

function readBatch(body: Buffer): Batch {
  let batch: Batch;
  try {
    batch = JSON.parse(body.toString("utf8")) as Batch;
  } catch {
    throw new Refused(400, "The body can't be read as JSON.");
  }
  if (batch.version !== 1) {
    throw new Refused(400, "This receiver knows version 1 of the body only.");
  }
  return batch;
}

function answer(response: ServerResponse, status: number, body: unknown): void {
  const encoded = Buffer.from(JSON.stringify(body));
  response.writeHead(status, { "content-type": "application/json", "content-length": encoded.length });
  response.end(encoded);
}

async function receive(secrets: Buffer[], store: Store, request: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    if (request.method !== "POST") {
      throw new Refused(405, "Deliveries are POST requests.");
    }
    const body = await readBody(request);
    const identity = checkSignature(secrets, request, body);
    const isPiece = request.headers["content-type"] === "application/octet-stream";
    const results = isPiece ? store.takePiece(identity, readPiece(identity, request), body) : store.take(identity, readBatch(body));
    answer(response, 200, { results });
  } catch (error) {
    if (error instanceof Refused) {
      answer(response, error.status, { error: error.message });
    } else {
      // Trying again can help: a full disk, a broken connection. Landfall does.
      console.error(error);
      answer(response, 503, { error: "The delivery could not be stored." });
    }
  }
}

const { values } = parseArgs({
  options: {
    host: { type: "string", default: "127.0.0.1" },
    port: { type: "string", default: "8080" },
    journal: { type: "string", default: "landfall.journal" },
  },
});
const secrets = readSecrets(process.env["LANDFALL_SINK_SECRET"] ?? "");
const store = await Store.open(values.journal ?? "landfall.journal");
const server = createServer((request, response) => void receive(secrets, store, request, response));
// A client that stops in the middle of a request must not hold its connection for ever.
server.requestTimeout = 60_000;
server.listen(Number(values.port), values.host, () => {
  const address = server.address();
  console.log(`Listening on http://${values.host}:${typeof address === "object" ? address?.port : address}/`);
});
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    server.close(() => store.close());
    server.closeAllConnections();
  });
}
