import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it as test } from 'node:test';
import { bind, client, fakeTime, online, settle } from './fake.mjs';

let time;
beforeEach(() => (time = fakeTime()));
afterEach(() => time.end());

/** The result of a promise as a text. */
const result = (promise) =>
  promise.then(
    (reply) => `ok ${JSON.stringify(reply.data ?? reply)}`,
    (error) => `${error.code ?? error.name}: ${error.message}`,
  );

describe('requests', () => {
  test('values are texts, and the answer has its data', async () => {
    const { it, net } = await online();
    const reply = it.request('call', { n: 3, on: true, list: [1], none: undefined, text: 'x' });
    const [request] = net.asked('call');
    assert.deepEqual(request.data, { n: '3', on: 'true', list: '[1]', text: 'x' });
    net.answer(request, { a: '1' });
    assert.deepEqual((await reply).data, { a: '1' });
    assert.equal((await reply).code, 200);
  });

  test('refusal rejects with code and reply', async () => {
    const { it, net } = await online();
    const reply = it.request('call');
    net.answer(net.asked('call')[0], { field: 'callee' }, 409, 'busy');
    await assert.rejects(reply, (error) => error.code === 409 && error.reply.data.field === 'callee' && /busy/.test(error.message));
  });

  test('answers with ref may come in any order', async () => {
    const { it, net } = await online();
    const replies = ['a', 'a', 'b'].map((key) => result(it.request(key)));
    const requests = net.requests().slice(1);
    for (const at of [2, 0, 1]) net.answer(requests[at], { n: `${at}` });
    assert.deepEqual(await Promise.all(replies), ['ok {"n":"0"}', 'ok {"n":"1"}', 'ok {"n":"2"}']);
  });

  test('without ref they come in order, and a request that timed out keeps its place', async () => {
    const made = client();
    const { it, net } = made;
    it.connect();
    await settle();
    net.last.events.opened();
    net.answer({ key: 'client_bind' }, { uid: 'ann', cid: '7' });
    await settle();
    const first = result(it.request('a', {}, { timeout: 1000 }));
    await time.pass(1000);
    assert.match(await first, /^timeout/);
    const second = result(it.request('a'));
    net.answer({ key: 'a' }, { n: '1' });
    net.answer({ key: 'a' }, { n: '2' });
    assert.equal(await second, 'ok {"n":"2"}');
    const third = result(it.request('gapless'));
    net.tell('gap', {}, 206);
    net.answer({ key: 'gapless' }, { n: '3' });
    assert.equal(await third, 'ok {"n":"3"}');
  });

  test('late answer to a request that timed out is no event', async () => {
    const { it, net, log } = await online();
    const reply = result(it.request('gap', {}, { timeout: 10 }));
    await time.pass(10);
    net.answer(net.asked('gap')[0]);
    assert.match(await reply, /^timeout/);
    assert.deepEqual(log.filter(([event]) => event === 'gap'), []);
  });

  test('signal aborts, before and after the send', async () => {
    const { it, net } = await online();
    const abort = new AbortController();
    const reply = result(it.request('a', {}, { signal: abort.signal }));
    abort.abort();
    assert.match(await reply, /aborted/);
    assert.match(await result(it.request('b', {}, { signal: abort.signal })), /aborted/);
    assert.equal(net.asked('b').length, 0);
  });

  test('requests wait for the connection, at most as many as the queue holds', async () => {
    const { it, net } = client({ queue: 2 });
    const replies = ['a', 'b', 'c'].map((key) => result(it.request(key)));
    assert.match(await replies[2], /^full/);
    it.connect();
    await bind(net);
    assert.deepEqual(net.requests().map(({ key }) => key), ['client_bind', 'a', 'b']);
    for (const key of ['a', 'b']) net.answer(net.asked(key)[0]);
    assert.deepEqual(await Promise.all(replies.slice(0, 2)), ['ok {}', 'ok {}']);
  });

  test('waiting request has its own time, and then frees its place', async () => {
    const { it, net } = client({ queue: 1, timeout: 500 });
    const first = result(it.request('a'));
    await time.pass(500);
    assert.match(await first, /^timeout/);
    const second = result(it.request('b'));
    it.connect();
    await bind(net);
    assert.deepEqual(net.requests().map(({ key }) => key), ['client_bind', 'b']);
    net.answer(net.asked('b')[0]);
    assert.equal(await second, 'ok {}');
  });

  test('queue: 0 rejects at once', async () => {
    assert.match(await result(client({ queue: 0 }).it.request('a')), /^full/);
  });

  test('lost connection rejects, except what may be repeated, which goes first', async () => {
    const { it, net } = await online();
    const lost = result(it.request('a'));
    const kept = result(it.request('b', {}, { retry: true }));
    const keyed = result(it.publish({ room: 'lobby' }, 'hi', { key: 'k1' }));
    const bare = result(it.publish({ room: 'lobby' }, 'hi'));
    net.drop();
    const later = result(it.request('c'));
    assert.match(await lost, /^lost/);
    assert.match(await bare, /^lost/);
    await time.pass(250);
    await bind(net);
    assert.deepEqual(net.requests().map(({ key }) => key), ['client_bind', 'b', 'message', 'c']);
    assert.equal(net.asked('message')[0].data.key, 'k1');
    net.answer(net.asked('b')[0]);
    net.answer(net.asked('message')[0], { id: '9', duplicate: 'true' });
    net.answer(net.asked('c')[0]);
    assert.deepEqual(await Promise.all([kept, later]), ['ok {}', 'ok {}']);
    assert.match(await keyed, /"duplicate":true/);
  });

  test('close rejects what waits', async () => {
    const { it } = client();
    const reply = result(it.request('a'));
    it.close();
    assert.match(await reply, /^stopped/);
  });
});

describe('publish', () => {
  const sent = async (to, content, options) => {
    const { it, net } = await online();
    const published = it.publish(to, content, options);
    const [{ data, ...request }] = net.asked('message');
    net.answer({ key: 'message', ...request }, { id: '12', delivered: '2', offline: 'eve,bob' });
    return [data, await published];
  };

  test('has target, body and options', async () => {
    const options = { key: 'k', action: 'note', title: 'T', image: 'u', extra: { n: 1 } };
    const [data, published] = await sent({ user: 'bob' }, { text: 'hi' }, options);
    const extra = '{"n":"1"}';
    assert.deepEqual(data, { to: 'user:bob', content: '{"text":"hi"}', key: 'k', action: 'note', title: 'T', image: 'u', extra });
    assert.deepEqual(published, { id: 12, delivered: 2, offline: ['eve', 'bob'], duplicate: false });
  });

  for (const value of ['hi', { a: '1' }, { n: 3, deep: [1, null] }, { json: 'x' }, [1], null, 7]) {
    test(`json() gives ${JSON.stringify(value)} back`, async () => {
      const { it, net } = await online();
      it.publish({ room: 'r' }, value).catch(() => {});
      const content = JSON.parse(net.asked('message')[0].data.content);
      assert.ok(Object.values(content).every((text) => typeof text === 'string'));
      let got;
      it.on('message', (message) => (got = message.json()));
      net.message({ content });
      assert.deepEqual(got, typeof value === 'string' ? { text: value } : value);
    });
  }

  test('id that JavaScript would round is a text', async () => {
    const { it, net } = await online();
    const published = it.publish({ user: 'bob' }, 'hi');
    net.answer(net.asked('message')[0], { id: '9223372036854775807' });
    assert.equal((await published).id, '9223372036854775807');
  });
});

describe('listeners', () => {
  test('on returns the function that removes it, and a throw harms no other', async (t) => {
    const errors = t.mock.method(console, 'error', () => {});
    const { it, net } = await online();
    const got = [];
    it.on('message', () => {
      throw new Error('broken');
    });
    const off = it.on('message', (message) => got.push(message.content.text));
    net.message({ content: { text: 'one' } });
    off();
    net.message({ content: { text: 'two' } });
    assert.deepEqual(got, ['one']);
    assert.equal(errors.mock.callCount(), 2);
    assert.equal(it.state, 'online');
  });

  test('malformed frame ends the connection', async () => {
    const { it, net } = await online();
    net.last.events.received('{"type":');
    assert.equal(it.state, 'waiting');
  });
});
