// Starts the language server, and shows the picture of a decoder beside its text.

const vscode = require("vscode");
const { LanguageClient, TransportKind } = require("vscode-languageclient/node");
const { page } = require("./picture");

/** Time without a change after which the picture is drawn again, in milliseconds. */
const QUIET = 400;

let client;
let panel; // { view, uri }
let timer;

async function activate(context) {
  context.subscriptions.push(
    vscode.commands.registerCommand("nasdsl.showPicture", () => showPicture(context)),
    vscode.commands.registerCommand("nasdsl.restart", restart),
    vscode.workspace.onDidChangeTextDocument(({ document }) => drawSoon(document)),
    vscode.window.onDidChangeActiveTextEditor((editor) => follow(editor)),
    vscode.workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration("nasdsl.command")) restart();
      else if (event.affectsConfiguration("nasdsl") && panel) draw();
    }),
  );
  await start();
}

async function start() {
  const [command, ...args] = vscode.workspace.getConfiguration("nasdsl").get("command");
  const run = { command, args, transport: TransportKind.stdio };
  client = new LanguageClient(
    "nasdsl",
    "nasdsl",
    { run, debug: run },
    {
      documentSelector: [{ language: "nas" }],
      synchronize: { configurationSection: "nasdsl", fileEvents: vscode.workspace.createFileSystemWatcher("**/*.nas") },
    },
  );
  try {
    await client.start();
  } catch (error) {
    client = undefined;
    const open = "Open Settings";
    const chosen = await vscode.window.showErrorMessage(
      `nasdsl: \`${[command, ...args].join(" ")}\` does not start (${error.message}). ` +
        "Install it with pip install 'nasdsl[lsp]', or set nasdsl.command to its path.",
      open,
    );
    if (chosen === open) vscode.commands.executeCommand("workbench.action.openSettings", "nasdsl.command");
  }
}

async function restart() {
  await deactivate();
  await start();
}

async function deactivate() {
  const old = client;
  client = undefined;
  await old?.stop();
}

// ------------------------------------------------------------------------------------------------------- the picture

async function showPicture(context) {
  const editor = vscode.window.activeTextEditor;
  if (editor?.document.languageId !== "nas") return;
  if (!panel) {
    const view = vscode.window.createWebviewPanel(
      "nasdsl.picture",
      "Picture",
      { viewColumn: vscode.ViewColumn.Beside, preserveFocus: true },
      { enableScripts: true, retainContextWhenHidden: true, localResourceRoots: [] },
    );
    view.onDidDispose(() => (panel = undefined), null, context.subscriptions);
    view.webview.html = page();
    panel = { view };
  }
  panel.uri = editor.document.uri.toString();
  panel.view.reveal(vscode.ViewColumn.Beside, true);
  await draw();
}

function follow(editor) {
  if (!panel || editor?.document.languageId !== "nas") return;
  panel.uri = editor.document.uri.toString();
  draw();
}

function drawSoon(document) {
  if (!panel || document.uri.toString() !== panel.uri) return;
  clearTimeout(timer);
  timer = setTimeout(draw, QUIET);
}

async function draw() {
  if (!panel || !client) return;
  const { uri, view } = panel;
  let answer;
  try {
    answer = await client.sendRequest("nasdsl/picture", { uri, fold: null });
  } catch (error) {
    answer = { message: error.message };
  }
  if (panel?.uri !== uri) return; // another text meanwhile
  view.title = `Picture: ${vscode.Uri.parse(uri).path.split("/").pop()}`;
  view.webview.postMessage(answer);
}

module.exports = { activate, deactivate };
