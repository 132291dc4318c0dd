import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it as test } from 'node:test';
import { RESUME, bind, client, fakeTime, online, settle } from './fake.mjs';

let time;
beforeEach(() => (time = fakeTime()));
afterEach(() => time.end());
const names = (log, event) => log.filter(([name]) => name === event).map(([, value]) => value);
const texts = (log) => names(log, 'message').map(({ content }) => content.text);
const joined = (net, room, data = {}) => net.answer(net.asked('room_join').at(-1), { room, changed: 'true', ...data });

describe('streams', () => {
  test('message names its stream', async () => {
    const { net, log } = await online();
    net.message({});
    net.message({ stream: 'r:lobby' });
    net.message({ stream: 'all', offset: 1, epoch: 'bbbbbbbb', id: 5 });
    assert.deepEqual(names(log, 'message').map(({ stream }) => stream), [{ user: 'ann' }, { room: 'lobby' }, { all: true }]);
    assert.deepEqual(names(log, 'message')[2].position, { epoch: 'bbbbbbbb', offset: 1, id: 5 });
  });

  test('message at or below the position of its epoch is dropped', async () => {
    const { it, net, log } = await online();
    const send = (text, offset, epoch = 'aaaaaaaa') => net.message({ offset, epoch, id: offset, content: { text } });
    send('1', 1);
    send('again', 1);
    send('3', 3);
    send('below', 2);
    send('new life', 1, 'cccccccc');
    net.message({ content: { text: 'not kept' } });
    assert.deepEqual(texts(log), ['1', '3', 'new life', 'not kept']);
    assert.deepEqual(it.position({ user: 'ann' }), { epoch: 'cccccccc', offset: 1, id: 1 });
  });

  test('reconnect sends positions and the former connection', async () => {
    const { net, log } = await online();
    net.message({ offset: 4, epoch: 'aaaaaaaa', id: 44 });
    net.message({ offset: 2, epoch: 'rrrrrrrr', id: 45, stream: 'r:given' });
    net.drop();
    await time.pass(250);
    const resume = '[["u",true,"aaaaaaaa",6,46,2],["all",false,"bbbbbbbb",9,50,0,"trimmed"],["r:given",false,"",0,0,0,"not_joined"]]';
    await bind(net, { resume, cid: '8' });
    const { data } = net.asked('client_bind')[0];
    assert.equal(data.cid, '7');
    assert.equal(data.resume, '[["u","aaaaaaaa",4,44],["all","bbbbbbbb",0,0],["r:given","rrrrrrrr",2,45]]');
    assert.deepEqual(names(log, 'recovered'), [
      { stream: { user: 'ann' }, recovered: true, reason: undefined },
      { stream: { all: true }, recovered: false, reason: 'trimmed' },
    ]);
    for (const offset of [5, 6]) net.message({ offset, epoch: 'aaaaaaaa', id: 40 + offset, content: { text: `${offset}` } });
    net.message({ offset: 9, epoch: 'bbbbbbbb', id: 50, stream: 'all', content: { text: 'before the loss' } });
    net.message({ offset: 10, epoch: 'bbbbbbbb', id: 51, stream: 'all', content: { text: 'after' } });
    assert.deepEqual(texts(log).slice(2), ['5', '6', 'after']);
  });

  test('node without a history reports a loss after a reconnect only', async () => {
    const off = '[["u",false,"",0,0,0,"off"],["all",false,"",0,0,0,"off"]]';
    const { net, log } = await online({}, { resume: off });
    assert.equal(names(log, 'recovered').length, 0);
    net.drop();
    await time.pass(250);
    await bind(net, { resume: undefined });
    assert.deepEqual(names(log, 'recovered').map(({ recovered }) => recovered), [false, false]);
  });

  test('gap and replay_end move the position', async () => {
    const { it, net, log } = await online();
    net.tell('replay_end', { stream: 'u', epoch: 'aaaaaaaa', offset: '7', id: '70' });
    assert.deepEqual(it.position({ user: 'ann' }), { epoch: 'aaaaaaaa', offset: 7, id: 70 });
    net.tell('gap', { stream: 'u', epoch: 'dddddddd', offset: '2', id: '71' }, 206, 'lost');
    net.tell('gap', {}, 206);
    assert.deepEqual(it.position({ user: 'ann' }), { epoch: 'dddddddd', offset: 2, id: 71 });
    assert.deepEqual(names(log, 'gap'), [{ stream: { user: 'ann' }, reason: 'lost' }, { stream: undefined, reason: '' }]);
  });

  test('positions survive a reload, and another user does not get them', async () => {
    let saved;
    const store = { load: () => saved, save: (text) => (saved = text) };
    const first = await online({ store });
    first.net.message({ offset: 4, epoch: 'aaaaaaaa', id: 44 });
    await time.pass(1);
    const second = await online({ store });
    assert.equal(JSON.parse(second.net.asked('client_bind')[0].data.resume)[0][2], 4);
    assert.equal(names(second.log, 'recovered').length, 2);
    const third = await online({ store }, { uid: 'bob', resume: RESUME.replaceAll('true', 'false') });
    assert.equal(names(third.log, 'recovered').length, 0);
  });

  test('unreadable store is told and replaced', async () => {
    for (const load of [() => '{"positions":', () => { throw new Error('denied'); }]) {
      const { it, net, log } = client({ store: { load, save() {} } });
      assert.equal(log.length, 0);
      it.connect();
      await bind(net);
      assert.equal(net.asked('client_bind')[0].data.resume, '[["u"],["all"]]');
    }
  });

  test('at most 128 streams are kept', async () => {
    const { net } = await online();
    for (let n = 0; n < 200; n++) net.message({ offset: 1, epoch: 'rrrrrrrr', id: n, stream: `r:${n}` });
    net.drop();
    await time.pass(250);
    await bind(net);
    const resume = JSON.parse(net.asked('client_bind')[0].data.resume);
    assert.equal(resume.length, 128);
    assert.deepEqual([resume[0][0], resume[1][0], resume.at(-1)[0]], ['u', 'all', 'r:199']);
  });

  test('manual acks are joined to one a second, without rooms', async () => {
    const { it, net } = await online({ acks: 'manual' });
    it.on('message', (message) => message.ack());
    for (const offset of [1, 2, 3]) net.message({ offset, epoch: 'aaaaaaaa', id: offset });
    net.message({ offset: 8, epoch: 'bbbbbbbb', id: 80, stream: 'all' });
    net.message({ offset: 1, epoch: 'rrrrrrrr', id: 81, stream: 'r:lobby' });
    assert.equal(net.asked('client_ack').length, 0);
    await time.pass(1000);
    assert.deepEqual(net.asked('client_ack').map(({ data }) => data), [
      { epoch: 'aaaaaaaa', offset: '3', reply: '1' },
      { epoch: 'bbbbbbbb', offset: '8', stream: 'all', reply: '1' },
    ]);
  });

  test('acks are automatic by default', async () => {
    const { it, net } = await online();
    it.on('message', (message) => message.ack());
    net.message({ offset: 1, epoch: 'aaaaaaaa', id: 1 });
    await time.pass(2000);
    assert.equal(net.asked('client_ack').length, 0);
  });

  test('plugin that changes the user starts other positions', async () => {
    const { it, net, log } = await online();
    const room = it.room('lobby');
    room.join();
    joined(net, 'lobby');
    net.tell('client_bind', { uid: 'bob', cid: '7', sid: 'n1' });
    assert.equal(it.uid, 'bob');
    assert.equal(names(log, 'bound').length, 2);
    assert.equal(net.asked('room_join').length, 2);
    assert.equal(it.position({ user: 'bob' }), undefined);
    assert.equal(net.asked('client_bind').at(-1).data.resume, '[["u"],["all"]]');
  });
});

describe('rooms', () => {
  test('are joined once, and left after the last user', async () => {
    const { it, net } = await online();
    const room = it.room('lobby');
    assert.equal(it.room('lobby'), room);
    const joins = [room.join(), room.join()];
    assert.deepEqual(net.asked('room_join').map(({ data }) => data), [{ room: 'lobby', since: '' }]);
    assert.equal(room.joined, false);
    joined(net, 'lobby');
    await Promise.all([...joins, room.join()]);
    assert.equal(room.joined, true);
    await room.leave();
    await room.leave();
    assert.equal(net.asked('room_leave').length, 0);
    const left = room.leave();
    assert.equal(room.joined, false);
    net.answer(net.asked('room_leave')[0]);
    await left;
    await room.leave();
    assert.equal(net.asked('room_leave').length, 1);
  });

  test('get their messages', async () => {
    const { it, net } = await online();
    const got = [];
    it.room('a').on('message', ({ content }) => got.push(content.text));
    net.message({ stream: 'r:a', content: { text: 'a' } });
    net.message({ stream: 'r:b', content: { text: 'b' } });
    net.message({ content: { text: 'own' } });
    assert.deepEqual(got, ['a']);
  });

  test('are joined before the connection and again after it, with the position', async () => {
    const { it, net, log } = client();
    const room = it.room('lobby');
    const events = [];
    for (const event of ['joined', 'left', 'recovered']) room.on(event, (value) => events.push([event, value]));
    const join = room.join({ data: { password: 'p' } });
    it.connect();
    await bind(net);
    assert.deepEqual(net.asked('room_join')[0].data, { password: 'p', room: 'lobby', since: '' });
    joined(net, 'lobby', { resume: '[["r:lobby",true,"rrrrrrrr",3,30,0]]' });
    await join;
    net.message({ stream: 'r:lobby', offset: 4, epoch: 'rrrrrrrr', id: 31 });
    net.drop();
    assert.equal(room.joined, false);
    await time.pass(250);
    await bind(net, { resume: RESUME.replace(/]$/, ',["r:lobby",false,"",0,0,0,"not_joined"]]') });
    assert.equal(net.asked('room_join')[0].data.since, 'rrrrrrrr:4:31');
    joined(net, 'lobby', { resume: '[["r:lobby",true,"rrrrrrrr",5,32,1]]' });
    net.message({ stream: 'r:lobby', offset: 5, epoch: 'rrrrrrrr', id: 32 });
    assert.deepEqual(events.map(([event]) => event), ['joined', 'joined', 'recovered']);
    assert.equal(names(log, 'message').length, 2);
  });

  test('room of the admission is not joined a second time, and its position is asked', async () => {
    const { it, net, log } = client();
    const room = it.room('team');
    room.join();
    it.connect();
    await bind(net, { rooms: '["team","news"]' });
    assert.equal(room.joined, true);
    assert.equal(net.asked('room_join').length, 0);
    const ask = net.asked('client_bind')[1];
    assert.equal(ask.data.resume, '[["r:team"],["r:news"]]');
    assert.equal(ask.data.token, undefined);
    net.answer(ask, { uid: 'ann', resume: '[["r:team",false,"tttttttt",5,50,0,"already_bound"],["r:news",false,"",0,0,0,"off"]]' });
    // It was on its way.
    net.message({ stream: 'r:team', offset: 5, epoch: 'tttttttt', id: 50 });
    assert.equal(names(log, 'message').length, 1);
    assert.equal(names(log, 'recovered').length, 0);
    net.drop();
    await time.pass(250);
    await bind(net, { rooms: '["team"]', resume: '[["u",true,"aaaaaaaa",0,0,0],["r:team",true,"tttttttt",5,50,0]]' });
    assert.match(net.asked('client_bind')[0].data.resume, /\["r:team","tttttttt",5,50\]/);
    assert.equal(names(log, 'recovered').filter(({ stream }) => stream.room === 'team')[0].recovered, true);
  });

  test('latest asks for the newest message, also after a reload', async () => {
    const saved = JSON.stringify({ uid: 'ann', positions: [['r:score', 'rrrrrrrr', 3, 30]] });
    const { it, net, log } = await online({ store: { load: () => saved, save() {} } });
    it.room('score').join({ latest: true });
    assert.deepEqual(net.asked('room_join')[0].data, { room: 'score', since: '', latest: '1' });
    joined(net, 'score', { resume: '[["r:score",true,"rrrrrrrr",3,30,1]]' });
    net.message({ stream: 'r:score', offset: 3, epoch: 'rrrrrrrr', id: 30 });
    assert.equal(names(log, 'message').length, 1);
  });

  test('refusal rejects join, and a later join asks again', async () => {
    const { it, net } = await online();
    const room = it.room('secret');
    const join = room.join();
    net.answer(net.asked('room_join')[0], {}, 403, 'room secret is not open');
    await assert.rejects(join, { code: 403 });
    const again = room.join();
    joined(net, 'secret');
    await again;
  });

  test('refusal after a reconnect is an event of the room', async () => {
    const { it, net } = await online();
    const room = it.room('lobby');
    const errors = [];
    room.on('error', (error) => errors.push(error.code));
    room.join();
    joined(net, 'lobby');
    for (const code of [503, 403]) {
      net.drop();
      await time.pass(1000);
      await bind(net);
      net.answer(net.asked('room_join')[0], {}, code, 'no');
    }
    net.drop();
    await time.pass(3000);
    await bind(net);
    assert.equal(net.asked('room_join').length, 0);
    assert.deepEqual(errors, [503, 403]);
  });

  test('leave before the answer, then join, waits for its own answer', async () => {
    const { it, net } = await online();
    const room = it.room('lobby');
    const first = room.join();
    room.leave();
    await assert.rejects(first, { code: 'stopped' });
    const second = room.join();
    const [one, two] = net.asked('room_join');
    net.answer(one, { changed: 'true' });
    assert.equal(room.joined, false);
    net.answer(net.asked('room_leave')[0]);
    net.answer(two, { changed: 'true' });
    await second;
    assert.equal(room.joined, true);
  });

  test('move by the back end is told', async () => {
    const { it, net, log } = await online();
    const room = it.room('lobby');
    net.tell('room_joined', { room: 'lobby' });
    assert.equal(room.joined, true);
    assert.equal(net.asked('client_bind')[1].data.resume, '[["r:lobby"]]');
    net.tell('room_left', { room: 'lobby' }, 410, 'membership ended');
    assert.equal(room.joined, false);
    assert.deepEqual(names(log, 'joined'), ['lobby']);
    assert.deepEqual(names(log, 'left'), [{ room: 'lobby', reason: 'membership ended' }]);
    net.drop();
    await time.pass(250);
    await bind(net);
    assert.equal(net.asked('room_join').length, 0);
  });

  test('stop rejects a join that waits', async () => {
    const { it } = client();
    const join = it.room('lobby').join();
    it.close();
    await assert.rejects(join, { code: 'stopped' });
  });

  test('publish goes to the room', async () => {
    const { it, net } = await online();
    it.room('lobby').publish('hi').catch(() => {});
    assert.equal(net.asked('message')[0].data.to, 'room:lobby');
    it.close();
    await settle();
  });
});
