// The body of an `app-data-uploaded` webhook.

const EVENT_TYPE = "app-data-uploaded";
const LABEL_MAX = 1024;

/** What may become part of a key and of a URL's path. */
export const IDENTITY = /^[A-Za-z0-9][A-Za-z0-9\-_.:~]{0,127}$/;

export class NotJson extends Error {}
export class InvalidUpload extends Error {}

export function readUpload(body) {
  let event;
  try {
    event = JSON.parse(body);
  } catch {
    throw new NotJson("the body is not JSON");
  }
  if (event?.eventType !== EVENT_TYPE) {
    throw new InvalidUpload(`only ${EVENT_TYPE} is taken`);
  }
  for (const field of ["transferId", "s3Key"]) {
    if (typeof event[field] !== "string" || !IDENTITY.test(event[field])) {
      throw new InvalidUpload(`${EVENT_TYPE} without a usable ${field}`);
    }
  }
  for (const field of ["originalTransferId", "messageId"]) {
    if (event[field] && (typeof event[field] !== "string" || !IDENTITY.test(event[field]))) {
      throw new InvalidUpload(`${EVENT_TYPE} with an unusable ${field}`);
    }
  }
  // The plan's name may hold personal data, and nobody needs it.
  delete event.migrationDetails?.name;
  return {
    eventType: event.eventType,
    transferId: event.transferId,
    originalTransferId: event.originalTransferId || undefined,
    messageId: event.messageId || undefined,
    s3Key: event.s3Key,
    label: typeof event.label === "string" ? event.label.slice(0, LABEL_MAX) : undefined,
    json: JSON.stringify(event),
  };
}
