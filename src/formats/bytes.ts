// Bytes as text, a character for each: what is kept of a record stays what it was, also where it is no UTF-8.

export function fromBytes(bytes: string): string {
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

export function toBytes(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1');
}
