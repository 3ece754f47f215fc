// The file on the disk, behind `nasdsl studio`: opened, watched, saved; where both sides have changed, the reader decides.
import { byId, toast } from "./dom.js";

const INTERVAL = 1000; // milliseconds between two looks at the disk

export class TextFile {
  #compiler;
  #editor;
  #on;
  #version = ""; // of the file that the text came from; empty: it does not exist
  #saved = ""; // the text as it is on the disk
  #conflict = null; // what is on the disk, while it is undecided
  #isComparing = false;
  #isLooking = false;
  name = null; // null: untitled

  /** `on`: renamed(). */
  constructor(compiler, editor, on) {
    this.#compiler = compiler;
    this.#editor = editor;
    this.#on = on;
    byId("take-theirs").onclick = () => this.#takeTheirs();
    byId("keep-mine").onclick = () => this.#keepMine();
    byId("save-beside").onclick = () => this.saveAs();
    byId("compare").onclick = () => this.#compare(!this.#isComparing);
    addEventListener("beforeunload", event => { if (this.isDirty) event.preventDefault(); });
    const look = () => { if (!document.hidden) this.#look(); };
    setInterval(look, INTERVAL);
    addEventListener("focus", look);
    document.addEventListener("visibilitychange", look);
  }

  get isDirty() {
    return this.name === null ? this.#editor.text !== this.#saved : this.#editor.text !== this.#saved || this.#version === "";
  }

  /** Call the present text saved: what an untitled text begins with is nothing that could be lost. */
  begin() {
    this.#saved = this.#editor.text;
    this.refresh();
  }

  async open(name) {
    const found = await this.#compiler.ask({ kind: "open", name });
    if (found.error) throw new Error(found.error);
    this.name = name;
    this.#version = found.version;
    this.#saved = found.text;
    if (found.exists) this.#editor.load(found.text);
    this.#on.renamed();
    this.refresh();
    return found.exists;
  }

  refresh() {
    byId("file-name").textContent = this.name ?? "untitled";
    byId("file-name").title = this.name === null ? "This text is in no file yet." : this.isDirty ? "not saved" : "saved";
    byId("dirty").hidden = !this.isDirty;
    byId("save").disabled = this.name !== null && !this.isDirty;
    byId("save").classList.toggle("primary", this.isDirty);
    byId("conflict").hidden = this.#conflict === null;
  }

  async save() {
    if (this.name === null) return this.saveAs();
    if (this.#conflict) return toast("The file has changed on the disk: choose first which text to keep.");
    return this.#write(this.name, this.#version);
  }

  async #write(name, version) {
    const text = this.#editor.text;
    let result;
    try {
      result = await this.#compiler.ask({ kind: "save", name, text, version });
    } catch (error) {
      result = { error: `not saved: ${error.message}` };
    }
    if (result.error) return toast(result.error), false;
    if (!result.saved) return this.#collide(result), false;
    this.#version = result.version;
    this.#saved = text;
    this.#settle();
    toast(`saved ${name}`);
    return true;
  }

  saveAs() {
    const dialog = byId("save-dialog"), input = byId("save-name");
    byId("save-problem").textContent = "";
    input.value = this.name === null ? `${this.#editor.text.match(/\bdecoder\s+(\w+)/)?.[1] ?? "untitled"}.nas` : this.name.replace(/\.nas$/, "_2.nas");
    let seen = null; // what is there under this name, once the reader has been told
    input.oninput = () => { seen = null; byId("save-problem").textContent = ""; byId("save-do").textContent = "Save"; };
    dialog.querySelector("form").onsubmit = async event => {
      event.preventDefault();
      const name = /\.nas$/.test(input.value.trim()) ? input.value.trim() : `${input.value.trim()}.nas`;
      const text = this.#editor.text;
      let result;
      try {
        result = await this.#compiler.ask({ kind: "save", name, text, version: seen?.name === name ? seen.version : "" });
      } catch (error) {
        result = { error: error.message };
      }
      if (result.saved) {
        this.name = name;
        this.#version = result.version;
        this.#saved = text;
        this.#settle();
        this.#on.renamed();
        dialog.close();
        toast(`saved ${name}`);
        return;
      }
      seen = result.error ? null : result;
      byId("save-problem").textContent = result.error ?? `${name} exists, and holds another text.`;
      byId("save-do").textContent = result.error ? "Save" : "Replace it";
    };
    dialog.showModal();
    input.setSelectionRange(0, input.value.replace(/\.nas$/, "").length);
  }

  // ------------------------------------------------------------------------------------------------ the disk's side

  async #look() {
    if (this.name === null || this.#isLooking) return;
    this.#isLooking = true;
    const name = this.name, version = this.#conflict?.version ?? this.#version;
    try {
      const found = await this.#compiler.ask({ kind: "changes", name, version });
      byId("gone").hidden = true;
      const isSame = name === this.name && version === (this.#conflict?.version ?? this.#version); // no save came in between
      if (isSame && found.changed) this.#arrive(found);
      else if (found.error) toast(found.error);
    } catch {
      byId("gone").hidden = false;
    } finally {
      this.#isLooking = false;
    }
  }

  /** Another text is on the disk than the one that is known. */
  #arrive(found) {
    if (!found.exists) {
      this.#version = "";
      this.#settle();
      toast(`${this.name} was removed from the disk; the text is still here.`);
    } else if (!this.isDirty || found.text === this.#editor.text) {
      const isNew = found.text !== this.#editor.text;
      this.#version = found.version;
      this.#saved = found.text;
      this.#editor.replace(found.text);
      this.#settle();
      if (isNew) toast(`${this.name} has changed on the disk, and is shown as it is there`);
    } else if (this.#version === "") {
      this.#collide(found);
    } else if (found.text === this.#saved) {
      this.#version = found.version; // the same text in other bytes
    } else {
      this.#collide(found);
    }
  }

  #collide(found) {
    if (!found.exists) return this.#arrive(found);
    this.#conflict = found;
    if (this.#isComparing) this.#compare(true);
    this.refresh();
  }

  #settle() {
    this.#conflict = null;
    this.#compare(false);
    this.refresh();
  }

  #compare(isOn) {
    this.#isComparing = isOn;
    this.#editor.compare(isOn ? this.#conflict.text : null);
    byId("compare").textContent = isOn ? "Hide the differences" : "Show the differences";
  }

  #takeTheirs() {
    const { text, version } = this.#conflict;
    this.#compare(false);
    this.#version = version;
    this.#saved = text;
    this.#editor.replace(text);
    this.#settle();
    toast("This is the text of the disk. Undo brings yours back.");
  }

  async #keepMine() {
    const mine = this.#editor.text, { text, version } = this.#conflict;
    this.#compare(false);
    this.#editor.replace(text); // so that undo leads to it
    this.#editor.replace(mine);
    if (await this.#write(this.name, version)) toast("Your text is on the disk now. Undo brings the other one back.");
  }
}
