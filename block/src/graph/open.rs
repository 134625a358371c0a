//! Opening: from a file name and options to a tree of nodes.
//!
//! A node is described by a [`Dict`]: its `driver`, the options that every node has, the driver's own
//! options, and one entry for each child, either a nested `Dict` or the name of an existing node.
//! Without a `driver` the format is probed from the first bytes of the `file` child.

use std::sync::Arc;

use super::edge::{Edge, Parent};
use super::flags::NodeFlags;
use super::node::Node;
use super::policy::{Policy, Rule};
use super::{Graph, Notices, perms};
use crate::buf::IoBufMut;
use crate::crypto::luks::DEFAULT_MAX_ITERATIONS;
use crate::driver::{self, DriverInfo, DriverKind, Perm, Role};
use crate::error::{Error, Result};
use crate::filters::throttle::ThrottleGroups;
use crate::options::filename::{self, ChildIdentity, Location, NodeIdentity};
use crate::options::{self, ChildRef, Dict, NodeOptions, OptionError, Value, take_option};
use crate::secret::Secret;
use crate::tls::TlsCreds;

/// Bytes that probing looks at.
const PROBE_BYTES: usize = 512;
/// Longest chain of backing files that is followed unless the policy says otherwise.
const MAX_CHAIN: usize = 200;

/// What to open: a file name, options, or both.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// File name; may be a `json:` name or begin with a protocol.
    pub filename: Option<String>,
    /// Options of the node and, nested, of its children.
    pub options: Dict,
    /// Flags that the node has unless its options say otherwise.
    pub flags: NodeFlags,
}

impl OpenOptions {
    /// Opens `filename`, as `format` if that is given.
    pub fn file(filename: impl Into<String>, format: Option<&str>, flags: NodeFlags) -> Self {
        let mut options = Dict::default();
        if let Some(format) = format {
            options.insert("driver", format);
        }
        OpenOptions { filename: Some(filename.into()), options, flags }
    }
}

/// Where a node stands in the tree being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// On top, a backing file or another image: a format, or a protocol by explicit choice.
    Image,
    /// The file below a format: a protocol, or whatever `driver` says.
    File,
}

impl Graph {
    /// Opens a node and everything below it.
    pub async fn open(self: &Arc<Graph>, what: OpenOptions) -> Result<Arc<Node>> {
        self.open_node(what, Level::Image, &[]).await
    }

    async fn open_node(
        self: &Arc<Graph>,
        what: OpenOptions,
        level: Level,
        chain: &[String],
    ) -> Result<Arc<Node>> {
        let OpenOptions { filename, mut options, flags } = what;
        let mut filename = filename;
        if let Some(json) = filename.as_deref().and_then(|f| f.strip_prefix("json:")) {
            let described = filename::parse_json(json)?;
            options = options::expand(options)?;
            options.merge_defaults(described);
            filename = None;
        }
        let common = NodeOptions::take(&mut options)?;
        let mut flags = flags.with(&common)?;
        flags.check &= level == Level::Image;
        let info = common.driver.as_deref().map(find_driver).transpose()?;
        let name = match &common.node_name {
            Some(name) => name.as_str().to_owned(),
            None => self.generated_name(),
        };
        let mut context = OpenContext {
            graph: self,
            name,
            filename: String::new(),
            options,
            flags,
            level,
            edges: Vec::new(),
            opened: Vec::new(),
            chain: chain.to_vec(),
            probed: None,
            format_probed: false,
            backing_changed: false,
            names_itself: false,
        };
        let info = match info {
            Some(info)
                if info.kind == DriverKind::Protocol
                    || (filename.is_some() && info.has_names()) =>
            {
                context.locate(filename.as_deref(), Some(info))?;
                info
            }
            Some(info) => {
                context.name_file_child(filename)?;
                info
            }
            None if level == Level::File => context.locate(filename.as_deref(), None)?,
            None => {
                context.name_file_child(filename)?;
                context.probe().await?
            }
        };
        context.finish(info).await
    }
}

/// The node that an option refers to by name.
fn existing(graph: &Graph, name: String) -> Result<Arc<Node>> {
    match graph.node(&name) {
        Some(node) => Ok(node),
        None => Err(Error::Name { what: "node", name, problem: "does not exist" }),
    }
}

fn missing(option: &str, node: &str) -> Error {
    Error::from(OptionError::Missing { name: option.to_owned() }).context(format!("node '{node}'"))
}

fn find_driver(name: &str) -> Result<&'static DriverInfo> {
    driver::find(name).ok_or_else(|| Error::Name {
        what: "driver",
        name: name.to_owned(),
        problem: "is not known",
    })
}

/// Makes `filename` the name of the child `key` of the node that `options` describe, or of the file
/// below that child if it is no driver with names.
fn name_child(options: &mut Dict, key: &'static str, filename: &str) -> Result<()> {
    let mut file = match options.remove(key) {
        Some(Value::Dict(file)) => file,
        None => Dict::default(),
        Some(_) => {
            return Err(Error::Option(OptionError::Conflict {
                name: key.to_owned(),
                problem: format!("names a node, which excludes the file name '{filename}'"),
            }));
        }
    };
    match file.get("driver").and_then(Value::as_str).map(find_driver).transpose()? {
        Some(info) if !info.has_names() => name_child(&mut file, "file", filename)?,
        given => {
            let info = apply_filename(&mut file, filename, given)?;
            file.insert("driver", info.name);
        }
    }
    options.insert(key, file);
    Ok(())
}

/// Adds what `filename` stands for to the options of a protocol node; `given` is the protocol that
/// they name.
fn apply_filename(
    options: &mut Dict,
    filename: &str,
    given: Option<&'static DriverInfo>,
) -> Result<&'static DriverInfo> {
    if options.contains("filename") {
        return Err(Error::Option(OptionError::Conflict {
            name: "filename".to_owned(),
            problem: format!("is given although the file is called '{filename}' already"),
        }));
    }
    let Location { driver, options: located } = filename::locate(filename, given)?;
    options.merge_defaults(located);
    Ok(driver)
}

/// What a driver's `open` works with: its options, and the way to open its children.
pub struct OpenContext<'g> {
    graph: &'g Arc<Graph>,
    name: String,
    filename: String,
    /// The driver's own options; it takes out what it knows, and refuses the rest.
    pub options: Dict,
    flags: NodeFlags,
    level: Level,
    edges: Vec<Arc<Edge>>,
    /// Nodes opened for this one, in contrast to those that were there and were named.
    opened: Vec<Arc<Node>>,
    /// Identities of the overlays above, to find backing loops.
    chain: Vec<String>,
    /// The `file` child, if probing opened it already.
    probed: Option<Arc<Node>>,
    format_probed: bool,
    /// The backing file is not the one that the image names.
    backing_changed: bool,
    /// `filename` counts even if there are options that usually make another node.
    names_itself: bool,
}

impl OpenContext<'_> {
    /// Name of the node being opened.
    pub fn node_name(&self) -> &str {
        &self.name
    }

    /// What messages call the node being opened.
    pub fn label(&self) -> String {
        if self.filename.is_empty() { self.name.clone() } else { self.filename.clone() }
    }

    /// The throttle groups that options refer to.
    pub fn throttle_groups(&self) -> &ThrottleGroups {
        self.graph.throttle_groups()
    }

    /// What images may ask for.
    pub fn policy(&self) -> &Policy {
        self.graph.policy()
    }

    /// Most iterations of a LUKS key derivation: what the node's options say, else the policy.
    pub(crate) fn max_luks_iterations(&self, given: Option<u64>) -> u64 {
        given.or(self.policy().bounds.luks_iterations).unwrap_or(DEFAULT_MAX_ITERATIONS)
    }

    /// Flags of the node being opened.
    pub fn flags(&self) -> NodeFlags {
        self.flags
    }

    /// The secret called `id`.
    pub fn secret(&self, id: &str) -> Result<Secret> {
        self.graph.secrets().find(id)
    }

    /// The TLS credentials called `id`.
    pub fn tls_credentials(&self, id: &str) -> Result<Arc<TlsCreds>> {
        self.graph.tls_credentials().find(id)
    }

    /// The TLS credentials for clients, if only one set of them is defined.
    pub fn only_tls_credentials(&self) -> Result<Arc<TlsCreds>> {
        self.graph.tls_credentials().only_client()
    }

    /// Whether the format was not given but found by probing.
    pub fn is_probed(&self) -> bool {
        self.format_probed
    }

    /// Where a node tells of what it finds while it is open.
    pub(crate) fn notices(&self) -> Arc<Notices> {
        Arc::clone(&self.graph.notices)
    }

    /// Tells the user what should be known though nothing failed.
    pub fn warn(&self, text: &str) {
        self.graph.notices.warn(text);
    }

    /// Makes the node read-only, because its format or content allows nothing else; an error if the
    /// user insists on writing.
    pub fn require_read_only(&mut self, why: &str) -> Result<()> {
        if self.flags.read_only {
            return Ok(());
        }
        if self.flags.auto_read_only {
            self.flags.read_only = true;
            return Ok(());
        }
        Err(Error::unsupported(self.label(), format!("{why}; open it read-only")))
    }

    /// Sets the name by which the node can be opened again. Protocols call this; formats take over
    /// the name of their primary child.
    pub fn set_filename(&mut self, filename: impl Into<String>) {
        self.filename = filename.into();
    }

    /// Sets the name that says all about the node, whatever options it was opened with; `None` if only
    /// a `json:` name can. Protocols that know their name from their options call this.
    pub fn set_exact_filename(&mut self, filename: Option<String>) {
        self.names_itself = filename.is_some();
        self.filename = filename.unwrap_or_default();
    }

    fn name_file_child(&mut self, filename: Option<String>) -> Result<()> {
        let Some(filename) = filename else { return Ok(()) };
        name_child(&mut self.options, "file", &filename)?;
        self.filename = filename;
        Ok(())
    }

    /// Finds the protocol and turns its file name, if there is one beside the options, into options.
    fn locate(
        &mut self,
        filename: Option<&str>,
        info: Option<&'static DriverInfo>,
    ) -> Result<&'static DriverInfo> {
        if let Some(filename) = filename {
            let info = apply_filename(&mut self.options, filename, info)?;
            let path = self.options.get("filename").and_then(Value::as_str);
            path.unwrap_or(filename).clone_into(&mut self.filename);
            return Ok(info);
        }
        // As an option it is a path, in which prefixes mean nothing.
        let path = self.options.get("filename").and_then(Value::as_str).map(str::to_owned);
        self.filename = path.clone().unwrap_or_default();
        match (info, path) {
            (Some(info), _) => Ok(info),
            (None, Some(path)) => filename::protocol_for_path(&path),
            (None, None) => Err(missing("driver", &self.name)),
        }
    }

    async fn probe(&mut self) -> Result<&'static DriverInfo> {
        if self.policy().explicit_format && !self.flags.no_io {
            let what = "its format is not given, and its content is not to be trusted to tell it";
            return Err(Error::refused(self.label(), Rule::Format, what));
        }
        let file = self.open_child_node("file", Role::IMAGE, None).await?;
        let file = file.ok_or_else(|| missing("file", &self.name))?;
        let present = usize::try_from(file.size()).unwrap_or(usize::MAX).min(PROBE_BYTES);
        let head = file.read(0, IoBufMut::zeroed(PROBE_BYTES)).await?;
        let name = file.filename();
        self.probed = Some(file);
        self.format_probed = true;
        probe(head.get(..present).unwrap_or_default(), &name)
            .ok_or_else(|| Error::unsupported(name, "no format driver knows this image"))
    }

    async fn finish(mut self, info: &'static DriverInfo) -> Result<Arc<Node>> {
        let graph = self.graph;
        let given = self.options.clone();
        let driver = (info.open)(&mut self).await;
        let driver = match driver {
            Ok(driver) => driver,
            Err(error) => {
                abandon(graph, self.edges, self.opened).await;
                return Err(error);
            }
        };
        let owner = format!("driver '{}'", info.name);
        let is_format = info.kind == DriverKind::Format;
        let left = options::reject_leftovers(&self.options, &owner, &[info.options]);
        let sound = left.map_err(Error::from);
        if let Err(error) = sound.and_then(|()| self.check_size(is_format, driver.size())) {
            // The error that led here is the one to report.
            let _ = driver.close().await;
            abandon(graph, self.edges, self.opened).await;
            return Err(error);
        }
        let identity = self.identity(info, &given);
        let yields_data = is_format && !self.flags.no_io;
        let flags = self.flags;
        let node = Node::new(self.name, identity, self.flags, driver, self.edges);
        let entered = graph.register(&node).and_then(|()| graph.mutate(|| perms::refresh(&node)));
        if let Err(error) = entered {
            // The error that led here is the one to report.
            let _ = node.driver().close().await;
            abandon(graph, node.take_children(), self.opened).await;
            return Err(error);
        }
        if yields_data && let Err(error) = graph.policy().check_expansion(&node).await {
            // What else fails here is what a check is to find.
            if !flags.check || matches!(error, Error::Refused { .. }) {
                // The error that led here is the one to report.
                let _ = graph.release(node).await;
                return Err(error);
            }
        }
        Ok(node)
    }

    /// Fails if an image claims to be larger than the policy allows.
    fn check_size(&self, is_format: bool, size: u64) -> Result<()> {
        if !is_format && self.level != Level::Image {
            return Ok(());
        }
        let bound = self.policy().bounds.virtual_size;
        let what = || format!("its disk has {size} bytes");
        Policy::check_bound(bound, size, &self.label(), Rule::VirtualSize, what)
    }

    /// What opens this node again, `given` being its options.
    fn identity(&self, info: &'static DriverInfo, given: &Dict) -> NodeIdentity {
        let nodes: Vec<_> = self.edges.iter().map(|edge| (edge, edge.node())).collect();
        let children: Vec<_> = nodes
            .iter()
            .filter(|(edge, _)| !edge.role().contains(Role::COW) || self.backing_changed)
            .map(|(edge, node)| ChildIdentity {
                key: edge.name(),
                identity: node.identity(),
                is_protocol: node.driver().info().kind == DriverKind::Protocol,
                is_primary: edge.role().contains(Role::PRIMARY),
            })
            .collect();
        let exact = Some(self.filename.clone()).filter(|name| !name.is_empty());
        let no_backing =
            self.backing_changed && children.iter().all(|child| child.key != "backing");
        let own = exact.clone().filter(|_| self.names_itself);
        let identity = filename::identify(info, given, exact, &children, no_backing);
        NodeIdentity { exact: own.or(identity.exact), ..identity }
    }

    /// The plain name of the file that this node is about.
    fn base_filename(&self) -> String {
        let primary = self.edges.iter().find(|edge| edge.role().contains(Role::PRIMARY));
        primary.and_then(|edge| edge.node().base_filename()).unwrap_or_default()
    }

    /// Makes `filename`, which may begin with a protocol, the name of the child `key`.
    pub fn name_child(&mut self, key: &'static str, filename: &str) -> Result<()> {
        name_child(&mut self.options, key, filename)
    }

    /// Opens the child that the options describe under `key`; an error if they do not.
    pub async fn child(&mut self, key: &str, role: Role) -> Result<Arc<Edge>> {
        match self.optional_child(key, role, None).await? {
            Some(edge) => Ok(edge),
            None => Err(missing(key, &self.name)),
        }
    }

    /// Opens the child that the options describe under `key`, else the file called `default`, as
    /// another image's metadata may name it. Such a name is a plain path, never a protocol.
    pub async fn optional_child(
        &mut self,
        key: &str,
        role: Role,
        default: Option<&str>,
    ) -> Result<Option<Arc<Edge>>> {
        let is_given = match self.options.get(key) {
            None => false,
            Some(Value::Dict(given)) => given.contains("driver") || given.contains("filename"),
            Some(_) => true,
        };
        let named = default.filter(|_| !is_given);
        if let Some(path) = named {
            let what = key.replace('-', " ");
            self.policy().check_reference(&self.base_filename(), &what, path)?;
        }
        let default = default.map(|path| {
            let mut file = Dict::default();
            file.insert("driver", "file");
            file.insert("filename", path);
            file
        });
        let node = match (key, self.probed.take()) {
            ("file", Some(node)) => Some(node),
            (_, probed) => {
                self.probed = probed;
                self.open_child_node(key, role, default).await?
            }
        };
        node.map(|node| self.attach(key, role, node)).transpose()
    }

    async fn open_child_node(
        &mut self,
        key: &str,
        role: Role,
        default: Option<Dict>,
    ) -> Result<Option<Arc<Node>>> {
        let options = match (take_option(&mut self.options, key, None)?, default) {
            (Some(ChildRef::Node(name)), _) => return existing(self.graph, name).map(Some),
            (Some(ChildRef::Options(mut options)), default) => {
                if !options.contains("driver") {
                    options.merge_defaults(default.unwrap_or_default());
                }
                options
            }
            (None, Some(default)) => default,
            (Some(ChildRef::Null) | None, _) => return Ok(None),
        };
        // What has a file but no driver is an image of any format.
        let is_image = options.contains("file") && !options.contains("driver");
        let level = if is_image { Level::Image } else { Level::File };
        let what = OpenOptions { filename: None, options, flags: self.flags.inherited(role) };
        let node = Box::pin(self.graph.open_node(what, level, &self.chain)).await?;
        self.opened.push(Arc::clone(&node));
        Ok(Some(node))
    }

    fn attach(&mut self, key: &str, role: Role, node: Arc<Node>) -> Result<Arc<Edge>> {
        let edge = Edge::attach(key, role, Parent::Node(self.name.clone()), node);
        let (used, mut shared) =
            super::default_child_perms(role, Perm::empty(), Perm::all(), self.flags.read_only);
        if self.flags.force_share {
            shared = Perm::all();
        }
        if let Err(error) = self.graph.mutate(|| perms::set(&edge, used, shared)) {
            edge.detach();
            return Err(error);
        }
        self.edges.push(Arc::clone(&edge));
        Ok(edge)
    }

    /// Opens the backing file: the one in the options, else `stored` as `format`, as the image's
    /// header names them. `None` where there is none or backing files are not wanted.
    pub async fn backing(
        &mut self,
        stored: Option<&str>,
        format: Option<&str>,
    ) -> Result<Option<Arc<Edge>>> {
        let given: Option<ChildRef> = take_option(&mut self.options, "backing", None)?;
        if self.flags.no_backing {
            return Ok(None);
        }
        let is_given = given.is_some();
        let options = match given {
            Some(ChildRef::Node(name)) if !name.is_empty() => {
                let node = existing(self.graph, name)?;
                self.note_backing(stored, Some(&node));
                return self.attach("backing", Role::COW, node).map(Some);
            }
            Some(ChildRef::Null | ChildRef::Node(_)) => {
                self.note_backing(stored, None);
                return Ok(None);
            }
            Some(ChildRef::Options(options)) => options,
            None => Dict::default(),
        };
        let what = self.backing_options(options, stored, format)?;
        let Some(what) = what else { return Ok(None) };
        let name = what.filename.clone().unwrap_or_default();
        let mut chain = self.chain.clone();
        chain.push(identity(&self.base_filename()));
        if !name.is_empty() && chain.contains(&identity(&name)) {
            return Err(Error::BackingLoop { node: self.label(), file: name });
        }
        let most = self.policy().bounds.chain_depth.unwrap_or(MAX_CHAIN);
        let depth = chain.len() + 1;
        if depth > most {
            let what = format!("its chain of backing files has more than {most} images");
            return Err(Error::refused(self.label(), Rule::ChainDepth, what));
        }
        let node =
            Box::pin(self.graph.open_node(what, Level::Image, &chain)).await.map_err(|error| {
                match error {
                    loops @ Error::BackingLoop { .. } => loops,
                    other => {
                        other.context(format!("cannot open backing file of '{}'", self.label()))
                    }
                }
            })?;
        self.opened.push(Arc::clone(&node));
        if is_given {
            self.note_backing(stored, Some(&node));
        }
        self.attach("backing", Role::COW, node).map(Some)
    }

    /// Notes whether the backing file in use is the one that the image names. Opened without I/O,
    /// the image is described, not used, and its own word counts.
    fn note_backing(&mut self, stored: Option<&str>, used: Option<&Node>) {
        let base = self.base_filename();
        let named = stored
            .filter(|stored| !stored.is_empty())
            .map(|stored| filename::resolve_backing(stored, &base).unwrap_or(stored.to_owned()));
        self.backing_changed = !self.flags.no_io && named != used.map(Node::filename);
    }

    fn backing_options(
        &self,
        mut options: Dict,
        stored: Option<&str>,
        format: Option<&str>,
    ) -> Result<Option<OpenOptions>> {
        let flags = self.flags.inherited(Role::COW);
        if options.get("file").is_some() || options.get("filename").is_some() {
            let filename = match options.remove("filename") {
                Some(Value::Str(filename)) => Some(filename),
                _ => None,
            };
            return Ok(Some(OpenOptions { filename, options, flags }));
        }
        let Some(stored) = stored.filter(|s| !s.is_empty()) else { return Ok(None) };
        let base = self.base_filename();
        let filename = filename::resolve_backing(stored, &base)?;
        self.policy().check_reference(&base, "backing file", &filename)?;
        if options.get("driver").is_none()
            && let Some(format) = format.filter(|f| !f.is_empty())
        {
            options.insert("driver", format);
        }
        Ok(Some(OpenOptions { filename: Some(filename), options, flags }))
    }
}

/// The driver whose probe gives the highest score for an image that begins with `head`.
pub fn probe(head: &[u8], filename: &str) -> Option<&'static DriverInfo> {
    let mut best = None;
    let mut best_score = 0;
    for info in driver::drivers() {
        let score = info.probe.map_or(0, |probe| probe(head, filename));
        if score > best_score {
            best_score = score;
            best = Some(info);
        }
    }
    best
}

/// Lets go of the children of a node that then failed to open, and closes those of them that were
/// opened for it.
async fn abandon(graph: &Arc<Graph>, edges: Vec<Arc<Edge>>, opened: Vec<Arc<Node>>) {
    // The error that led here is the one to report, hence no other is.
    for edge in edges {
        let child = edge.node();
        edge.detach();
        let _ = graph.mutate(|| perms::refresh(&child));
    }
    for node in opened {
        let _ = graph.release(node).await;
    }
}

/// What tells two files apart, whatever path leads to them: device and inode for local files.
fn identity(filename: &str) -> String {
    let path = filename.strip_prefix("file:").unwrap_or(filename);
    match std::fs::metadata(path) {
        Ok(meta) => {
            use std::os::unix::fs::MetadataExt;
            format!("{}:{}", meta.dev(), meta.ino())
        }
        Err(_) => filename.to_owned(),
    }
}
