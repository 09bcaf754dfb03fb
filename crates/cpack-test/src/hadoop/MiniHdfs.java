import java.io.BufferedReader;
import java.io.File;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.nio.file.Files;
import java.security.PrivilegedExceptionAction;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.LocatedFileStatus;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.hdfs.HdfsConfiguration;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.hdfs.MiniDFSNNTopology;
import org.apache.hadoop.hdfs.server.datanode.DataNodeFaultInjector;
import org.apache.hadoop.hdfs.server.namenode.ha.HATestUtil;
import org.apache.hadoop.minikdc.MiniKdc;
import org.apache.hadoop.security.Credentials;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.security.token.Token;

/**
 * An HDFS in one process, for the tests: {@code MiniHdfs DIRECTORY [ha] [secure] [large-blocks]}.
 *
 * <p>Leaves {@code conf/} (a client's configuration), and when secure {@code krb5.conf}, {@code user.keytab} of alice and
 * her {@code tokens} in the directory, prints READY, obeys commands on standard input (one a line, answered by OK) and
 * ends when that ends.
 */
public class MiniHdfs {
  private static final String USER = "alice";

  private final File directory;
  private final boolean ha;
  private final boolean secure;
  private final boolean largeBlocks;
  private final AtomicInteger stalled = new AtomicInteger();
  private final Configuration conf = new HdfsConfiguration();
  private MiniKdc kdc;
  private MiniDFSCluster cluster;
  private Configuration client;
  private UserGroupInformation user;
  private Credentials credentials;

  private MiniHdfs(File directory, java.util.List<String> flags) {
    this.directory = directory;
    this.ha = flags.contains("ha");
    this.secure = flags.contains("secure");
    this.largeBlocks = flags.contains("large-blocks");
  }

  public static void main(String[] args) throws Exception {
    java.util.List<String> flags = java.util.Arrays.asList(args);
    MiniHdfs hdfs = new MiniHdfs(new File(args[0]), flags);
    try {
      hdfs.start();
      System.out.println("READY");
      BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
      for (String line = commands.readLine(); line != null; line = commands.readLine()) {
        hdfs.obey(line.trim());
        System.out.println("OK");
      }
    } catch (Throwable failure) {
      failure.printStackTrace();
      Runtime.getRuntime().halt(1);
    }
    // Nothing here is worth an orderly end.
    Runtime.getRuntime().halt(0);
  }

  private void start() throws Exception {
    conf.set("hdfs.minidfs.basedir", new File(directory, "dfs").getPath());
    conf.set("dfs.namenode.fs-limits.min-block-size", "1048576");
    // Small blocks, so that small files have several.
    conf.set("dfs.blocksize", largeBlocks ? "134217728" : "1048576");
    conf.set("dfs.namenode.replication.min", "1");
    conf.set("dfs.permissions.enabled", "true");
    conf.set("dfs.namenode.accesstime.precision", "0");
    conf.set("dfs.ha.tail-edits.in-progress", "false");
    if (secure) {
      secure();
    }
    MiniDFSNNTopology topology = ha ? MiniDFSNNTopology.simpleHATopology() : new MiniDFSNNTopology().addNameservice(
        new MiniDFSNNTopology.NSConf(null).addNN(new MiniDFSNNTopology.NNConf(null)));
    cluster = new MiniDFSCluster.Builder(conf).nnTopology(topology).numDataNodes(2).build();
    if (ha) {
      cluster.transitionToActive(0);
    }
    cluster.waitActive();
    client = client();
    asServer(() -> {
      FileSystem fs = FileSystem.get(client);
      fs.mkdirs(new Path("/user/" + USER));
      fs.setOwner(new Path("/user/" + USER), USER, USER);
      fs.mkdirs(new Path("/forbidden"));
      fs.setPermission(new Path("/forbidden"), new FsPermission((short) 0700));
      return null;
    });
    if (secure) {
      tokens();
    }
  }

  private void secure() throws Exception {
    Properties properties = MiniKdc.createConf();
    kdc = new MiniKdc(properties, new File(directory, "kdc"));
    kdc.start();
    File keytab = new File(directory, "server.keytab");
    kdc.createPrincipal(keytab, "hdfs/localhost", "HTTP/localhost");
    kdc.createPrincipal(new File(directory, "user.keytab"), USER);
    String krb5 = new String(Files.readAllBytes(kdc.getKrb5conf().toPath()));
    // The client library of C resolves names backwards unless told not to.
    krb5 = krb5.replace("[libdefaults]", "[libdefaults]\n    rdns = false\n    dns_canonicalize_hostname = false");
    Files.write(new File(directory, "krb5.conf").toPath(), krb5.getBytes());
    String hdfs = "hdfs/localhost@" + kdc.getRealm();
    conf.set("hadoop.security.authentication", "kerberos");
    for (String daemon : new String[] {"namenode", "datanode"}) {
      conf.set("dfs." + daemon + ".kerberos.principal", hdfs);
      conf.set("dfs." + daemon + ".keytab.file", keytab.getPath());
    }
    conf.set("dfs.web.authentication.kerberos.principal", "HTTP/localhost@" + kdc.getRealm());
    conf.set("dfs.web.authentication.kerberos.keytab", keytab.getPath());
    conf.setBoolean("dfs.block.access.token.enable", true);
    conf.setBoolean("ignore.secure.ports.for.testing", true);
    conf.set("dfs.data.transfer.protection", "authentication");
    conf.set("dfs.http.policy", "HTTP_ONLY");
    conf.setBoolean("dfs.namenode.delegation.token.always-use", true);
    UserGroupInformation.setConfiguration(conf);
    UserGroupInformation.loginUserFromKeytab(hdfs, keytab.getPath());
  }

  /** What a client's machine would have, written to conf/. */
  private Configuration client() throws Exception {
    Configuration client = new Configuration(false);
    if (ha) {
      HATestUtil.setFailoverConfigurations(cluster, client, "cluster");
      for (int i = 0; i < 2; i++) {
        // As people write it: without a scheme.
        client.set("dfs.namenode.rpc-address.cluster.nn" + (i + 1), "localhost:" + cluster.getNameNodePort(i));
      }
    } else {
      client.set("fs.defaultFS", "hdfs://localhost:" + cluster.getNameNodePort());
    }
    if (secure) {
      for (String name : new String[] {"hadoop.security.authentication", "dfs.data.transfer.protection",
          "dfs.namenode.kerberos.principal", "dfs.datanode.kerberos.principal"}) {
        client.set(name, conf.get(name));
      }
    }
    File directory = new File(this.directory, "conf");
    directory.mkdirs();
    try (OutputStream out = new FileOutputStream(new File(directory, "core-site.xml"))) {
      client.writeXml(out);
    }
    Configuration whole = new HdfsConfiguration();
    whole.addResource(client);
    return whole;
  }

  private void tokens() throws Exception {
    String keytab = new File(directory, "user.keytab").getPath();
    user = UserGroupInformation.loginUserFromKeytabAndReturnUGI(USER, keytab);
    user.doAs((PrivilegedExceptionAction<Void>) () -> {
      credentials = new Credentials();
      FileSystem.newInstance(client).addDelegationTokens(USER, credentials);
      credentials.writeTokenStorageFile(new Path("file://" + directory.getPath() + "/tokens"), client);
      return null;
    });
  }

  private void obey(String command) throws Exception {
    String[] words = command.split(" ");
    switch (words[0]) {
      case "stop-datanode" -> cluster.stopDataNode(Integer.parseInt(words[1]));
      case "failover" -> {
        cluster.transitionToStandby(0);
        cluster.transitionToActive(1);
      }
      case "stall-reads" -> {
        AtomicInteger left = new AtomicInteger(Integer.parseInt(words[1]));
        int seconds = Integer.parseInt(words[2]);
        DataNodeFaultInjector.set(new DataNodeFaultInjector() {
          // Called whenever a data node opens a block to send it.
          @Override
          public void throwTooManyOpenFiles() {
            if (left.getAndDecrement() > 0) {
              stalled.incrementAndGet();
              sleep(seconds);
            }
          }
        });
      }
      case "expect-stalled" -> {
        if (stalled.get() != Integer.parseInt(words[1])) {
          throw new IllegalStateException(stalled + " reads were stalled");
        }
      }
      case "age" -> {
        long time = System.currentTimeMillis() - 86_400_000L * Integer.parseInt(words[2]);
        asServer(() -> {
          FileSystem fs = FileSystem.get(client);
          RemoteIterator<LocatedFileStatus> files = fs.listFiles(new Path(words[1]), true);
          while (files.hasNext()) {
            fs.setTimes(files.next().getPath(), time, -1);
          }
          return null;
        });
      }
      case "forbid" -> asServer(() -> {
        FileSystem.get(client).setPermission(new Path(words[1]), new FsPermission((short) 0700));
        return null;
      });
      case "cancel-tokens" -> user.doAs((PrivilegedExceptionAction<Void>) () -> {
        for (Token<?> token : credentials.getAllTokens()) {
          token.cancel(client);
        }
        return null;
      });
      case "expect-replication" -> asServer(() -> {
        RemoteIterator<LocatedFileStatus> files = FileSystem.get(client).listFiles(new Path(words[1]), true);
        if (!files.hasNext()) {
          throw new IllegalStateException("no file in " + words[1]);
        }
        while (files.hasNext()) {
          LocatedFileStatus file = files.next();
          if (file.getReplication() != Integer.parseInt(words[2])) {
            throw new IllegalStateException(file.getPath() + " has " + file.getReplication() + " replicas");
          }
        }
        return null;
      });
      case "stop-namenode" -> cluster.shutdownNameNode(Integer.parseInt(words[1]));
      case "safe-mode" -> cluster.getNameNodeRpc(0).setSafeMode(
          words[1].equals("on")
              ? org.apache.hadoop.hdfs.protocol.HdfsConstants.SafeModeAction.SAFEMODE_ENTER
              : org.apache.hadoop.hdfs.protocol.HdfsConstants.SafeModeAction.SAFEMODE_LEAVE,
          false);
      default -> throw new IllegalArgumentException(command);
    }
  }

  private static void sleep(int seconds) {
    try {
      Thread.sleep(1000L * seconds);
    } catch (InterruptedException end) {
      Thread.currentThread().interrupt();
    }
  }

  private void asServer(PrivilegedExceptionAction<Void> action) throws Exception {
    UserGroupInformation.getLoginUser().doAs(action);
  }
}
