// The table and the queue. The clients are made once and keep their connections, as the SDK does by default.

import { crc32 } from "node:zlib";
import { ConditionalCheckFailedException, DynamoDBClient, GetItemCommand, PutItemCommand } from "@aws-sdk/client-dynamodb";
import { SendMessageCommand, SQSClient } from "@aws-sdk/client-sqs";

const TABLE = process.env.LANDFALL_TABLE;
const QUEUE_URL = process.env.LANDFALL_IMPORTS_QUEUE_URL;

// The platform waits 5 seconds for its answer: an attempt that hangs has to leave time for another one.
const PATIENCE = {
  maxAttempts: 3,
  requestHandler: { connectionTimeout: 750, requestTimeout: 750, throwOnRequestTimeout: true },
};

const TENANT_CACHE_MILLISECONDS = 10_000;
const MESSAGE_GRACE_MILLISECONDS = 2 * 60_000;
const DEDUPE_LIFE_SECONDS = 30 * 24 * 3_600;
const DUE_SHARDS = 4;

const table = new DynamoDBClient(PATIENCE);
const queue = new SQSClient(PATIENCE);
const tenants = new Map();

/** Opens the table's connection while nobody waits for it. */
export async function warmUp() {
  await table.send(new GetItemCommand({ TableName: TABLE, Key: { pk: { S: "WARM#UP" }, sk: { S: "WARM#UP" } } }));
}

/** The tenant as it was read within the last seconds; undefined when the app was never installed there. */
export async function findTenant(clientKey, now) {
  const known = tenants.get(clientKey);
  if (known && now < known.lookAt) {
    return known.tenant;
  }
  const { Item: row } = await table.send(
    new GetItemCommand({
      TableName: TABLE,
      Key: { pk: { S: `TENANT#${clientKey}` }, sk: { S: "STATE" } },
      // An event may follow its installation at once.
      ConsistentRead: true,
    }),
  );
  if (!row) {
    tenants.delete(clientKey);
    return undefined;
  }
  // Landfall keeps the secret sealed in this row, in another attribute. Opening it is once a cache's life, so the comparison takes it as
  // plain text, which a table of yours should not hold.
  const tenant = { installed: row.installed?.BOOL === true, secret: row.plain_secret.S };
  tenants.set(clientKey, { tenant, lookAt: now + TENANT_CACHE_MILLISECONDS });
  return tenant;
}

/** Puts the file's row, unless it is there: false says that the event was delivered before. */
export async function announce(tenant, upload, receivedAt) {
  const partition = `TRANSFER#${tenant}#${upload.transferId}`;
  const sort = `FILE#${upload.s3Key}`;
  const row = {
    pk: { S: partition },
    sk: { S: sort },
    kind: { S: "file" },
    v: { N: "1" },
    tenant: { S: tenant },
    transfer_id: { S: upload.transferId },
    s3_key: { S: upload.s3Key },
    event: { S: upload.json },
    state: { S: "ANNOUNCED" },
    fence: { N: "0" },
    attempts: { N: "0" },
    received_at: { N: `${receivedAt}` },
    expires_at: { N: `${Math.floor(receivedAt / 1000) + DEDUPE_LIFE_SECONDS}` },
    // The sparse index of rows whose message may be missing. Any even spread will do; Landfall's own hash is another.
    due_shard: { S: `DUE#${crc32(partition + sort) % DUE_SHARDS}` },
    due_at: { N: `${receivedAt + MESSAGE_GRACE_MILLISECONDS}` },
  };
  if (upload.label !== undefined) {
    row.label = { S: upload.label };
  }
  if (upload.messageId !== undefined) {
    row.message_id = { S: upload.messageId };
  }
  try {
    await table.send(new PutItemCommand({ TableName: TABLE, Item: row, ConditionExpression: "attribute_not_exists(pk)" }));
    return true;
  } catch (error) {
    if (error instanceof ConditionalCheckFailedException) {
      return false;
    }
    throw error;
  }
}

/** Sends the event to whoever imports the file. */
export async function enqueue(tenant, upload, receivedAt) {
  await queue.send(
    new SendMessageCommand({
      QueueUrl: QUEUE_URL,
      MessageBody: JSON.stringify({ v: 1, tenant, task: { event: { body: upload.json, received_at: receivedAt } } }),
      // A fair queue: one tenant's backlog doesn't delay the others.
      MessageGroupId: tenant,
    }),
  );
}
