// ioredis and node-redis, as their users have them: values of bytes, expiry, pipelines, transactions, scans, messages.
const assert = require('node:assert');
const Redis = require('ioredis');
const { createClient } = require('redis');

const port = Number(process.argv[2]);
const bytes = Buffer.from([0, 255, 1]);

async function ioredis() {
  const client = new Redis(port, '127.0.0.1', { maxRetriesPerRequest: 2 });
  await client.flushall();
  assert.equal(await client.set('bytes', bytes, 'EX', 100), 'OK');
  assert.deepEqual(await client.getBuffer('bytes'), bytes);
  const left = await client.ttl('bytes');
  assert.ok(left > 90 && left <= 100);
  assert.deepEqual(await client.mget('nope', 'nope2'), [null, null]);
  assert.deepEqual(await client.pipeline().set('n', 1).incr('n').get('n').exec(), [[null, 'OK'], [null, 2], [null, '2']]);
  assert.deepEqual(await client.multi().set('t', 'x').get('t').exec(), [[null, 'OK'], [null, 'x']]);
  await client.watch('n');
  await client.duplicate().set('n', 7);
  assert.equal(await client.multi().incr('n').exec(), null);
  await client.mset(new Map(Array.from({ length: 500 }, (_, i) => [`k${i}`, `${i}`])));
  const found = new Set();
  for await (const keys of client.scanStream({ match: 'k*', count: 100 })) keys.forEach((key) => found.add(key));
  assert.equal(found.size, 500);
  const listener = client.duplicate();
  const told = new Promise((resolve) => listener.on('message', (channel, message) => resolve([channel, message])));
  await listener.subscribe('channel');
  assert.equal(await client.publish('channel', 'hello'), 1);
  assert.deepEqual(await told, ['channel', 'hello']);
  await assert.rejects(client.lpush('list', 1), /unknown command/);
}

async function nodeRedis(RESP) {
  const client = createClient({ url: `redis://127.0.0.1:${port}`, RESP });
  client.on('error', (error) => { throw error; });
  await client.connect();
  assert.equal(await client.set('v', 'x', { expiration: { type: 'EX', value: 100 } }), 'OK');
  assert.deepEqual(await client.mGet(['v', 'nope']), ['x', null]);
  assert.deepEqual(await client.multi().incr('c' + RESP).get('c' + RESP).exec(), [1, '1']);
  let count = 0;
  for await (const keys of client.scanIterator({ MATCH: 'k*', COUNT: 100 })) count += keys.length;
  assert.equal(count, 500);
  assert.equal(await client.ping(), 'PONG');
  await client.close();
}

(async () => {
  await ioredis();
  for (const RESP of [2, 3]) await nodeRedis(RESP);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
