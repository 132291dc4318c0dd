// The blocks of the documents that are marked `<!-- client -->`.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Node, PROGRAM, ROOT } from './node.mjs';

const DOCUMENTS = ['clients/js/README.md', 'docs/tutorials/first-chat.md'];
const PACKAGE = join(ROOT, 'clients/js');

/** Kind and text of the blocks. */
const blocks = DOCUMENTS.flatMap((document) => {
  const text = readFileSync(join(ROOT, document), 'utf8');
  return [...text.matchAll(/<!-- client -->\n```(\w+)\n([\s\S]*?)```/g)].map(([, kind, code]) => ({ document, kind, code }));
});

let node;
before(async () => (node = await Node.start()));
after(() => Node.stopAll());

test('TypeScript blocks compile', () => {
  const folder = mkdtempSync(join(PACKAGE, 'documents-'));
  try {
    const codes = blocks.filter(({ kind }) => kind === 'ts').map(({ code }) => code);
    assert.ok(codes.length >= 4);
    const platform = 'declare const uni: any, wx: any;\n';
    codes.forEach((code, n) => writeFileSync(join(folder, `${n}.ts`), `${platform}${code}\nexport {};\n`));
    const options = { strict: true, noEmit: true, target: 'ES2022', module: 'ESNext', moduleResolution: 'bundler' };
    const paths = { 'skylark-client': [join(PACKAGE, 'dist/esm/index.d.ts')], 'skylark-client/vue': [join(PACKAGE, 'dist/esm/vue.d.ts')] };
    const config = { compilerOptions: { ...options, lib: ['ES2022', 'DOM'], types: [], skipLibCheck: true, paths }, include: ['*.ts'] };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config));
    execFileSync(process.execPath, [join(PACKAGE, 'node_modules/typescript/bin/tsc'), '-p', folder], { stdio: 'pipe' });
  } catch (error) {
    assert.fail(String(error.stdout ?? error));
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('commands exist, and pushes are accepted', () => {
  const lines = blocks.filter(({ kind }) => kind === 'sh').flatMap(({ code }) => code.trim().split('\n'));
  assert.ok(lines.length >= 6);
  for (const line of lines) {
    const words = line.replace(/^cargo run --release -- /, 'skylark ').split(' ');
    if (words[0] === 'skylark') {
      const help = execFileSync(PROGRAM, [words[1], '--help'], { encoding: 'utf8' });
      for (const option of words.filter((word) => word.startsWith('--'))) assert.ok(help.includes(option), line);
    } else if (words[0] === 'npm') {
      const folder = join(ROOT, words[words.indexOf('--prefix') + 1]);
      const { scripts } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
      assert.ok(words.at(-1) === 'install' || scripts[words.at(-1)], line);
    } else if (words[0] === 'curl') {
      const answer = execFileSync('sh', ['-c', line.replace(':8080', `:${node.port}`)], { encoding: 'utf8' });
      assert.equal(JSON.parse(answer).code, 200, answer);
    } else {
      assert.equal(words.slice(0, 3).join(' '), 'python3 -m http.server', line);
      execFileSync('python3', ['-c', 'import http.server']);
    }
  }
});

test('package has every file that it exports', () => {
  const { exports, main, module, types, unpkg } = JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8'));
  const files = [main, module, types, unpkg];
  const walk = (entry) => (typeof entry === 'string' ? files.push(entry) : Object.values(entry).forEach(walk));
  walk(exports);
  for (const file of files) assert.ok(existsSync(join(PACKAGE, file)), file);
});
