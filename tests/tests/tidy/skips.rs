//! Tests that end early without a report that they were ignored.
//!
//! What reports is a function of the crate `requires`, and every function that calls one. A test may
//! return early only where such a call decides about it: in the condition, or in a statement before.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};
use syn::{Block, Expr, ExprReturn, ImplItemFn, ItemFn, Pat, ReturnType, Signature, Stmt, Type};

/// The functions that report, by what they are imported from.
const REPORTING: [(&str, &[&str]); 3] = [
    ("requires", &["root", "program", "cannot"]),
    ("e2e", &["root", "peer", "cannot"]),
    // The crate `e2e` itself.
    ("crate", &["root", "peer", "cannot"]),
];

/// A function of a file, without its body's text.
struct Function {
    file: usize,
    name: String,
    /// The type it belongs to.
    of: Option<String>,
    signature: Signature,
    body: Block,
    is_test: bool,
    /// Whether it stands among tests.
    among_tests: bool,
    reports: bool,
}

/// The functions of the files of a package, and of the crates that its tests use.
#[derive(Default)]
struct Functions {
    all: Vec<Function>,
    /// Per file: the names it imports that report.
    imported: Vec<BTreeSet<String>>,
    texts: Vec<String>,
    by_name: BTreeMap<String, Vec<usize>>,
    /// The constants of the tests' files: tables of tests without a harness.
    tables: Vec<(usize, Expr)>,
    /// How many files are the package's own; the others follow.
    own: usize,
}

/// Where tests end early in silence: `FILE: FUNCTION`. A file is its name, its text, and whether all of it
/// is for tests; `shared` are files of other crates that help tests.
pub fn silent(files: &[(String, String, bool)], shared: &[(String, String, bool)]) -> Vec<String> {
    let mut functions = Functions { own: files.len(), ..Functions::default() };
    for (_, text, tests) in files.iter().chain(shared) {
        functions.read(text, *tests);
    }
    functions.spread();
    let found = functions.tests().into_iter().filter(|index| {
        let function = &functions.all[*index];
        function.file < files.len() && functions.ends_in_silence(function)
    });
    let named = |index: usize| {
        let function = &functions.all[index];
        format!("{}: {}", files[function.file].0, function.name)
    };
    found.map(named).collect()
}

impl Functions {
    fn read(&mut self, text: &str, tests: bool) {
        let parsed = syn::parse_file(text).expect("Rust that compiles");
        let file = self.imported.len();
        let mut reader =
            Reader { functions: self, file, tests, of: None, imported: BTreeSet::new() };
        reader.visit_file(&parsed);
        let imported = reader.imported;
        self.imported.push(imported);
        self.texts.push(text.to_owned());
    }

    fn add(&mut self, function: Function) {
        self.by_name.entry(function.name.clone()).or_default().push(self.all.len());
        self.all.push(function);
    }

    /// Marks every function that reports, itself or by another one.
    fn spread(&mut self) {
        let called = |function: &Function| {
            let calls = self.calls(function.file, |calls| calls.visit_block(&function.body));
            (calls.reports, calls.used)
        };
        let mut called: Vec<(bool, BTreeSet<usize>)> = self.all.iter().map(called).collect();
        loop {
            let reports: Vec<bool> = called.iter().map(|(reports, _)| *reports).collect();
            for (of, used) in &mut called {
                *of |= used.iter().any(|index| reports[*index]);
            }
            if called.iter().map(|(reports, _)| *reports).eq(reports) {
                break;
            }
        }
        let marked = self.all.iter_mut().zip(called);
        marked.for_each(|(function, (reports, _))| function.reports = reports);
    }

    fn calls(&self, file: usize, visit: impl FnOnce(&mut Calls<'_>)) -> Calls<'_> {
        let mut calls = Calls::new(self, file, None);
        visit(&mut calls);
        calls
    }

    /// The functions that a path may mean: those of the file first.
    fn meant(&self, file: usize, path: &syn::Path) -> Vec<usize> {
        let words: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        let Some((name, before)) = words.split_last() else { return Vec::new() };
        let of = before.last().filter(|word| word.starts_with(char::is_uppercase));
        let all = self.by_name.get(name).into_iter().flatten().copied();
        let fits = |index: &usize| match of.map(String::as_str) {
            Some("Self") => self.all[*index].of.is_some(),
            of => self.all[*index].of.as_deref() == of,
        };
        self.nearest(file, all.filter(fits).collect())
    }

    /// Those of the file, else those of the package, else all.
    fn nearest(&self, file: usize, all: Vec<usize>) -> Vec<usize> {
        let of = |near: &dyn Fn(usize) -> bool| -> Vec<usize> {
            all.iter().copied().filter(|index| near(self.all[*index].file)).collect()
        };
        let here = of(&|other| other == file);
        let own = of(&|other| other < self.own);
        [here, own].into_iter().find(|some| !some.is_empty()).unwrap_or(all)
    }

    /// The methods of this name that helpers of tests have, those of the file first.
    fn methods(&self, file: usize, call: &syn::ExprMethodCall) -> Vec<usize> {
        let all = self.by_name.get(&call.method.to_string()).into_iter().flatten().copied();
        // A file that has such a value most often says so.
        let helps = |index: &usize| {
            let function = &self.all[*index];
            let takes = function.signature.inputs.len() == call.args.len() + 1;
            takes
                && function.among_tests
                && function.of.as_ref().is_some_and(|of| self.texts[file].contains(of))
        };
        self.nearest(file, all.filter(helps).collect())
    }

    fn path_reports(&self, file: usize, path: &syn::Path, meant: &[usize]) -> bool {
        let words: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        let direct = match &words[..] {
            [.., krate, name] => reports(krate, name),
            [name] => self.imported.get(file).is_some_and(|names| names.contains(name)),
            [] => false,
        };
        direct || meant.iter().any(|index| self.all[*index].reports)
    }

    /// The tests, and the functions among tests that return nothing and that they name.
    fn tests(&self) -> BTreeSet<usize> {
        let mut todo: Vec<usize> =
            (0..self.all.len()).filter(|index| self.all[*index].is_test).collect();
        let mut found: BTreeSet<usize> = todo.iter().copied().collect();
        for (file, table) in &self.tables {
            let listed = |calls: &mut Calls<'_>| {
                calls.table = true;
                calls.visit_expr(table);
            };
            let listed = self.calls(*file, listed).named;
            todo.extend(listed.into_iter().filter(|index| found.insert(*index)));
        }
        while let Some(index) = todo.pop() {
            let function = &self.all[index];
            let calls = self.calls(function.file, |calls| calls.visit_block(&function.body));
            for next in calls.named {
                let other = &self.all[next];
                let nothing = matches!(other.signature.output, ReturnType::Default);
                if other.among_tests && (nothing || other.reports) && found.insert(next) {
                    todo.push(next);
                }
            }
        }
        found
    }

    fn ends_in_silence(&self, function: &Function) -> bool {
        let answers = match &function.signature.output {
            ReturnType::Type(_, kind) => answer(kind),
            ReturnType::Default => Some("()"),
        };
        let Some(answers) = answers else { return false };
        let mut ends = Ends {
            functions: self,
            file: function.file,
            answers,
            is_test: function.is_test,
            known: BTreeSet::new(),
            guarded: false,
            looping: false,
            silent: false,
        };
        ends.visit_block(&function.body);
        ends.silent
    }
}

/// How a function says that it found nothing, for the types that helpers of tests return.
fn answer(kind: &Type) -> Option<&'static str> {
    let Type::Path(path) = kind else { return None };
    match path.path.segments.last()?.ident.to_string().as_str() {
        "Option" => Some("None"),
        "bool" => Some("false"),
        _ => None,
    }
}

fn reports(krate: &str, name: &str) -> bool {
    REPORTING.iter().any(|(of, names)| *of == krate && names.contains(&name))
}

/// Reads the functions and imports of a file.
struct Reader<'a> {
    functions: &'a mut Functions,
    file: usize,
    tests: bool,
    of: Option<String>,
    imported: BTreeSet<String>,
}

impl Reader<'_> {
    fn function(&mut self, attributes: &[syn::Attribute], signature: &Signature, body: &Block) {
        let named = |attribute: &syn::Attribute| {
            attribute.path().segments.last().is_some_and(|last| last.ident == "test")
        };
        let name = signature.ident.to_string();
        let is_test = attributes.iter().any(named) || (self.tests && name == "main");
        self.functions.add(Function {
            file: self.file,
            name,
            of: self.of.clone(),
            signature: signature.clone(),
            body: body.clone(),
            is_test,
            among_tests: self.tests,
            reports: false,
        });
    }

    fn import(&mut self, before: &str, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => self.import(&path.ident.to_string(), &path.tree),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(before, tree));
            }
            syn::UseTree::Name(name) if reports(before, &name.ident.to_string()) => {
                self.imported.insert(name.ident.to_string());
            }
            syn::UseTree::Rename(name) if reports(before, &name.ident.to_string()) => {
                self.imported.insert(name.rename.to_string());
            }
            _ => {}
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import("", &item.tree);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        if self.tests {
            self.functions.tables.push((self.file, (*item.expr).clone()));
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let before = self.tests;
        self.tests |= item.ident == "tests";
        visit::visit_item_mod(self, item);
        self.tests = before;
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let Type::Path(path) = &*item.self_ty {
            self.of = path.path.segments.last().map(|last| last.ident.to_string());
        }
        visit::visit_item_impl(self, item);
        self.of = None;
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }
}

/// What a piece of code calls.
struct Calls<'a> {
    functions: &'a Functions,
    file: usize,
    /// Variables that hold what a reporting call gave.
    known: Option<&'a BTreeSet<String>>,
    reports: bool,
    /// The functions that it names.
    used: BTreeSet<usize>,
    /// The same, those of threads and callbacks excepted.
    named: BTreeSet<usize>,
    later: bool,
    /// Whether it is a table of tests.
    table: bool,
}

impl<'a> Calls<'a> {
    fn new(
        functions: &'a Functions,
        file: usize,
        known: Option<&'a BTreeSet<String>>,
    ) -> Calls<'a> {
        let (used, named) = (BTreeSet::new(), BTreeSet::new());
        Calls { functions, file, known, reports: false, used, named, later: false, table: false }
    }

    fn names(&mut self, path: &syn::Path) {
        let meant = self.functions.meant(self.file, path);
        self.reports |= self.functions.path_reports(self.file, path, &meant);
        self.used.extend(&meant);
        if !self.later {
            self.named.extend(meant);
        }
    }
}

impl<'ast> Visit<'ast> for Calls<'_> {
    fn visit_expr_path(&mut self, expr: &'ast syn::ExprPath) {
        let variable = expr.path.get_ident().map(ToString::to_string);
        self.reports |=
            variable.as_ref().zip(self.known).is_some_and(|(name, known)| known.contains(name));
        // A single name that is not called is a variable, but in a table of tests.
        if variable.is_none() || self.table {
            self.names(&expr.path);
        }
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        match &*call.func {
            Expr::Path(path) => self.names(&path.path),
            other => self.visit_expr(other),
        }
        call.args.iter().for_each(|argument| self.visit_expr(argument));
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        let before = std::mem::replace(&mut self.later, true);
        visit::visit_expr_closure(self, closure);
        self.later = before;
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        for index in self.functions.methods(self.file, call) {
            self.reports |= self.functions.all[index].reports;
            self.used.insert(index);
        }
        visit::visit_expr_method_call(self, call);
    }
}

/// Looks for ends of a function that no report decides about.
struct Ends<'a> {
    functions: &'a Functions,
    file: usize,
    /// What is returned where nothing was found.
    answers: &'static str,
    is_test: bool,
    known: BTreeSet<String>,
    guarded: bool,
    looping: bool,
    silent: bool,
}

impl Ends<'_> {
    fn reporting(&self, expr: &Expr) -> bool {
        self.reports(|calls| calls.visit_expr(expr))
    }

    fn reports(&self, visit: impl FnOnce(&mut Calls<'_>)) -> bool {
        let mut calls = Calls::new(self.functions, self.file, Some(&self.known));
        visit(&mut calls);
        calls.reports
    }

    /// Whether a statement is a report, in one of its arms at least.
    fn says(&self, statement: &Expr) -> bool {
        match statement {
            Expr::Call(call) => {
                let later = |arg: &Expr| matches!(arg, Expr::Async(_) | Expr::Closure(_));
                !call.args.iter().any(later) && self.reporting(statement)
            }
            Expr::Match(choice) => choice.arms.iter().any(|arm| self.says(&arm.body)),
            Expr::Block(block) => {
                let mut statements = block.block.stmts.iter();
                statements.any(|one| matches!(one, Stmt::Expr(expr, _) if self.says(expr)))
            }
            _ => false,
        }
    }

    fn within(&mut self, guarded: bool, visit: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.guarded, guarded);
        visit(self);
        self.guarded = before;
    }

    fn learn(&mut self, local: &syn::Local) {
        let Some(init) = &local.init else { return };
        if self.reporting(&init.expr) {
            let mut names = Names::default();
            names.visit_pat(&local.pat);
            self.known.extend(names.0);
        }
    }
}

#[derive(Default)]
struct Names(BTreeSet<String>);

impl<'ast> Visit<'ast> for Names {
    fn visit_pat(&mut self, pat: &'ast Pat) {
        if let Pat::Ident(ident) = pat {
            self.0.insert(ident.ident.to_string());
        }
        visit::visit_pat(self, pat);
    }
}

impl<'ast> Visit<'ast> for Ends<'_> {
    fn visit_block(&mut self, block: &'ast Block) {
        let before = self.guarded;
        for statement in &block.stmts {
            self.visit_stmt(statement);
            if let Stmt::Local(local) = statement {
                self.learn(local);
            }
            self.guarded |= matches!(statement, Stmt::Expr(expr, _) if self.says(expr));
        }
        self.guarded = before;
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        let Some(init) = &local.init else { return };
        self.visit_expr(&init.expr);
        if let Some((_, otherwise)) = &init.diverge {
            let guarded = self.guarded || self.reporting(&init.expr);
            self.within(guarded, |ends| ends.visit_expr(otherwise));
        }
    }

    fn visit_expr_if(&mut self, expr: &'ast syn::ExprIf) {
        let guarded = self.guarded || self.reporting(&expr.cond);
        self.within(guarded, |ends| {
            ends.visit_block(&expr.then_branch);
            if let Some((_, otherwise)) = &expr.else_branch {
                ends.visit_expr(otherwise);
            }
        });
    }

    fn visit_expr_match(&mut self, expr: &'ast syn::ExprMatch) {
        let guarded = self.guarded || self.reporting(&expr.expr);
        self.within(guarded, |ends| expr.arms.iter().for_each(|arm| ends.visit_expr(&arm.body)));
    }

    fn visit_expr_loop(&mut self, expr: &'ast syn::ExprLoop) {
        let before = std::mem::replace(&mut self.looping, !self.is_test);
        visit::visit_expr_loop(self, expr);
        self.looping = before;
    }

    fn visit_expr_while(&mut self, expr: &'ast syn::ExprWhile) {
        let before = std::mem::replace(&mut self.looping, !self.is_test);
        visit::visit_expr_while(self, expr);
        self.looping = before;
    }

    fn visit_expr_for_loop(&mut self, expr: &'ast syn::ExprForLoop) {
        let before = std::mem::replace(&mut self.looping, !self.is_test);
        visit::visit_expr_for_loop(self, expr);
        self.looping = before;
    }

    // What a thread or a callback ends is not the test.
    fn visit_expr_closure(&mut self, _: &'ast syn::ExprClosure) {}

    fn visit_item(&mut self, _: &'ast syn::Item) {}

    fn visit_expr_return(&mut self, expr: &'ast ExprReturn) {
        if expr.expr.as_ref().is_some_and(|told| self.reporting(told)) {
            return;
        }
        let nothing = match expr.expr.as_deref() {
            None => self.answers == "()",
            Some(Expr::Path(path)) => path.path.is_ident(self.answers),
            Some(Expr::Lit(literal)) => matches!(&literal.lit, syn::Lit::Bool(flag)
                if !flag.value && self.answers == "false"),
            Some(Expr::Call(_)) => self.is_test,
            Some(_) => false,
        };
        self.silent |= nothing && !self.guarded && !self.looping;
    }
}

#[test]
fn a_test_that_returns_in_silence_is_found() {
    let found = |text: &str| silent(&[("file".to_owned(), text.to_owned(), true)], &[]);
    for body in [
        "if !std::path::Path::new(\"/x\").exists() { return; }",
        "let Some(found) = which(\"skopeo\") else { println!(\"skipped\"); return };",
        "let ready = other(); if ready { return; }",
        "match which(\"skopeo\") { Some(_) => {} None => return }",
        "run(async { if other() { return; } });",
        "helper();",
    ] {
        let text = format!(
            "#[test] fn one() {{ {body} assert!(true); }} fn helper() {{ if !other() {{ return; }} }}"
        );
        assert_eq!(found(&text).len(), 1, "{body}");
    }
    for body in [
        "if !requires::root() { return; }",
        "let Some(found) = program(\"skopeo\") else { return };",
        "let ready = possible(); if !ready { return; }",
        "if !other() { requires::cannot(\"no kernel has it\"); return; }",
        "if !other() && !possible() { return; }",
        "run(async { let Some(one) = Scene::new() else { return }; });",
        "std::thread::spawn(|| { if other() { return; } });",
        "waiting();",
    ] {
        let text = format!(
            "use requires::program; #[tokio::test] async fn one() {{ {body} assert!(true); }} \
             fn possible() -> bool {{ requires::root() }} struct Scene; \
             impl Scene {{ fn new() -> Option<Scene> {{ possible().then_some(Scene) }} }} \
             fn waiting() {{ loop {{ if other() {{ return; }} }} }}"
        );
        assert_eq!(found(&text), Vec::<String>::new(), "{body}");
    }
    let half = "#[test] fn one() { if !ready() { return; } } fn ready() -> bool { \
                if !std::path::Path::new(\"/x\").exists() { return false; } requires::root() }";
    assert_eq!(found(half), ["file: ready"]);
}
