// The warm path of Landfall's intake as a partner writes it by hand in Node: one `app-data-uploaded` webhook of Connect, stored as a row
// and as a message before it is acknowledged. ../README.md says what is left out.

import { sender, Unauthorized } from "./authentication.js";
import { announce, enqueue, warmUp } from "./storage.js";
import { InvalidUpload, NotJson, readUpload } from "./upload.js";

const BASE_PATH = new URL(process.env.LANDFALL_APP_BASE_URL || "https://localhost").pathname.replace(/\/$/, "");
const ROUTE = "/connect/events";

/** What has to be over before the first event is taken. An ES module would await it at its top level, which a CommonJS bundle can't. */
export const ready = warmUp().catch((error) => {
  // The first event opens the connection then.
  log("warn", "could not warm the table's connection up", { error: error.message });
});

export async function handler(event) {
  const receivedAt = Date.now();
  const path = event.rawPath.startsWith(`${BASE_PATH}/`) ? event.rawPath.slice(BASE_PATH.length) : event.rawPath;
  const { method } = event.requestContext.http;
  if (path !== ROUTE) {
    return answer(404, "not found");
  }
  if (method !== "POST") {
    return answer(405, "method not allowed");
  }
  try {
    const tenant = await sender(event.headers.authorization, method, path, event.rawQueryString, receivedAt);
    const upload = readUpload(event.isBase64Encoded ? Buffer.from(event.body ?? "", "base64").toString() : event.body);
    // Each carries the whole event: a worker may begin at once, and whoever looks for lost messages finds the row.
    const [isNew] = await Promise.all([announce(tenant, upload, receivedAt), enqueue(tenant, upload, receivedAt)]);
    log("info", "took an event in", {
      "tenant.id": tenant,
      "transfer.id": upload.transferId,
      "transfer.original_id": upload.originalTransferId,
      "message.id": upload.messageId,
      "event.type": upload.eventType,
      metric: isNew ? "event_stored" : "event_duplicate",
    });
    return answer(200);
  } catch (error) {
    return refusal(error);
  }
}

function refusal(error) {
  if (error instanceof Unauthorized) {
    log("warn", "refused a call whose token does not hold", { "auth.reason": error.message, metric: "call_unauthorized" });
    // The same for every reason: it tells a forger nothing.
    return answer(401, "unauthorized");
  }
  if (error instanceof NotJson || error instanceof InvalidUpload) {
    log("warn", "rejected an event", { error: error.message, metric: "event_rejected" });
    return answer(error instanceof NotJson ? 400 : 422, error.message);
  }
  log("error", "could not store an event", { error: `${error.name}: ${error.message}`, metric: "event_not_stored" });
  return answer(503, "not stored, send it again");
}

function answer(statusCode, message) {
  return { statusCode, headers: { "content-type": "application/json" }, body: message ? JSON.stringify({ message }) : "{}" };
}

function log(level, message, fields) {
  console.log(JSON.stringify({ timestamp: new Date().toISOString(), level, message, ...fields }));
}
